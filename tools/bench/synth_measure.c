/* SPDX-License-Identifier: MIT
 *
 * hearth-synth_measure MODEL.gguf TOKENS: what a planted model really does, layer by layer, beside its plan, on random,
 * greedy and sampled token streams (docs/synth.md). Threads: one. */
#include "tests/tools/synth_sim.h"

static void report(sim *s, const char *what, const uint32_t *ids, uint32_t n)
{
    double density = 0, planned = 0, overlap = 0, overlap_planned = 0, route = 0, route_planned = 0, n_l = s->n_layer;
    uint32_t distinct = 0, topic = 0;

    for (uint32_t i = 0; i < n; i++) {
        bool seen = false;

        for (uint32_t j = 0; j < i && !seen; j++)
            seen = ids[j] == ids[i];
        distinct += !seen;
        topic += i > 0 && (ids[i] >= s->split) != (ids[i - 1] >= s->split);
    }
    printf("%s: %u tokens, %u distinct, %u changes of topic\n", what, n, distinct, topic);
    printf("layer  density plan    overlap plan    routing plan    fired by both topics\n");
    for (uint32_t l = 0; l < s->n_layer; l++) {
        sim_layer *y = &s->layers[l];
        size_t n_all = (size_t)(s->n_expert ? s->n_expert : 1) * s->ff;
        double p[3] = { sim_number(s, "hearth.synth.layer_density", l, NAN),
                        sim_number(s, "hearth.synth.layer_overlap", l, NAN),
                        sim_number(s, "hearth.synth.layer_routing_overlap", l, NAN) };
        double m[3] = { y->n_active / y->n_computed, y->n_both / y->n_was,
                        s->n_expert ? y->n_same / y->n_pairs / s->n_used : 0 };
        double dot = 0, aa = 0, bb = 0;

        for (size_t i = 0; i < n_all; i++) {
            dot += (double)y->fired[0][i] * y->fired[1][i];
            aa += (double)y->fired[0][i] * y->fired[0][i];
            bb += (double)y->fired[1][i] * y->fired[1][i];
        }
        printf("%5u  %6.4f %6.4f   %5.3f %5.3f   %5.3f %5.3f   cosine %.3f\n", l, m[0], p[0], m[1], p[1], m[2], p[2],
               dot / sqrt(aa * bb + 1e-30));
        density += m[0] / n_l;
        planned += p[0] / n_l;
        overlap += m[1] / n_l;
        overlap_planned += p[1] / n_l;
        route += m[2] / n_l;
        route_planned += p[2] / n_l;
    }
    printf(" mean  %6.4f %6.4f   %5.3f %5.3f   %5.3f %5.3f\n\n", density, planned, overlap, overlap_planned, route,
           route_planned);
}

int main(int argc, char **argv)
{
    static const char *const names[] = {"random", "greedy", "sampled"};
    uint32_t n = argc > 2 ? (uint32_t)strtoul(argv[2], NULL, 10) : 256;
    uint32_t *ids = malloc((n + 1) * sizeof *ids);
    sim s = { 0 };

    if (argc < 2 || !ids || !sim_open(&s, argv[1], n + 1)) {
        fprintf(stderr, "usage: hearth-synth_measure MODEL.gguf [TOKENS]\n");
        sim_close(&s);
        free(ids);
        return 2;
    }
    for (int how = 0; how < 3; how++) {
        sim_reset(&s);
        sim_run(&s, (sim_stream)how, n, 7, ids);
        report(&s, names[how], ids, n);
        if (how == 0) {
            double sum = 0, square = 0;

            for (uint32_t i = 0; i < s.d; i++)
                square += (double)s.x[i] * s.x[i];
            printf("last token: stream rms %.3f", sqrt(square / s.d));
            square = 0;
            for (uint32_t i = 0; i < s.n_vocab; i++) {
                sum += s.logits[i];
                square += (double)s.logits[i] * s.logits[i];
            }
            printf(", logits %.2f +- %.2f\n\n", sum / s.n_vocab,
                   sqrt(square / s.n_vocab - sum * sum / s.n_vocab / s.n_vocab));
        }
    }
    sim_close(&s);
    free(ids);
    return 0;
}
