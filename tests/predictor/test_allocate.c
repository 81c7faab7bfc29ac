/* SPDX-License-Identifier: MIT
 * Densities shared out among blocks: against every other way to do it, on cases small enough to try them all. */
#include <criterion/criterion.h>
#include <math.h>
#include <stdlib.h>

#include "predictor/predictor.h"

enum { BLOCKS = 3, LEVELS = 6, NEURONS = 400 };

static uint32_t state = 7;

static double uniform(void)
{
    state = state * 1664525u + 1013904223u;
    return (state >> 8) * 0x1p-24;
}

static double normal(void)
{
    return sqrt(-2 * log(uniform() + 1e-12)) * cos(6.283185307 * uniform());
}

typedef struct block {
    double rows[LEVELS], density[LEVELS * LEVELS], error[LEVELS * LEVELS];
} block;

/* Neurons of gates a and hidden units a * u, errors their squares: what a surface is made of where the down columns are
 * orthogonal. */
static ht_surface surface(block *b, double up_bytes, double spread)
{
    double a[NEURONS], h[NEURONS], sorted[2][NEURONS], energy = 0;
    const bool gated = up_bytes > 0;

    for (int i = 0; i < NEURONS; i++) {
        a[i] = fabs(normal()) * exp(spread * normal());
        h[i] = gated ? a[i] * fabs(normal()) : a[i];
        sorted[0][i] = a[i];
        sorted[1][i] = h[i];
        energy += h[i] * h[i];
    }
    for (int k = 0; k < 2; k++)
        for (int i = 1; i < NEURONS; i++)
            for (int j = i; j > 0 && sorted[k][j] < sorted[k][j - 1]; j--) {
                const double t = sorted[k][j];
                sorted[k][j] = sorted[k][j - 1];
                sorted[k][j - 1] = t;
            }
    for (int g = 0; g < LEVELS; g++) {
        b->rows[g] = 0;
        for (int l = 0; l < LEVELS; l++) {
            const double least_a = g ? sorted[0][NEURONS * g / LEVELS] : 0;
            const double least_h = l ? sorted[1][NEURONS * l / LEVELS] : 0;
            double kept = 0, miss = 0, rows = 0;
            for (int i = 0; i < NEURONS; i++) {
                const bool in = a[i] >= least_a && h[i] >= least_h;
                rows += a[i] >= least_a;
                kept += in;
                miss += in ? 0 : h[i] * h[i];
            }
            b->rows[g] = rows / NEURONS;
            b->density[g * LEVELS + l] = kept / NEURONS;
            b->error[g * LEVELS + l] = miss / energy;
        }
    }
    return (ht_surface){ .n_gate = gated ? LEVELS : 1,
                         .n_hidden = LEVELS,
                         .neurons = NEURONS,
                         .up_bytes = up_bytes,
                         .down_bytes = 1,
                         .cost = 1,
                         .rows = b->rows,
                         .density = b->density,
                         .error = b->error };
}

static double bytes_of(const ht_surface *s, ht_level l)
{
    return s->neurons * (s->up_bytes * ht_surface_rows(s, l.gate) + s->down_bytes * ht_surface_at(s, s->density, l));
}

/* Least error of all settings that read at most `bytes`. */
static double exhaustive(const ht_surface *s, double bytes)
{
    uint32_t total = 1;
    double best = INFINITY;

    for (int i = 0; i < BLOCKS; i++)
        total *= s[i].n_gate * s[i].n_hidden;
    for (uint32_t k = 0; k < total; k++) {
        double read = 0, error = 0;
        uint32_t left = k;
        for (int i = 0; i < BLOCKS; i++) {
            const ht_level l = { left % s[i].n_gate, left / s[i].n_gate % s[i].n_hidden };
            left /= s[i].n_gate * s[i].n_hidden;
            read += bytes_of(&s[i], l);
            error += s[i].cost * ht_surface_at(&s[i], s[i].error, l);
        }
        if (read <= bytes * (1 + 1e-12) && error < best)
            best = error;
    }
    return best;
}

static void sums(const ht_surface *s, const ht_level *l, double *bytes, double *error, double *density)
{
    *bytes = *error = *density = 0;
    for (int i = 0; i < BLOCKS; i++) {
        *bytes += bytes_of(&s[i], l[i]);
        *error += s[i].cost * ht_surface_at(&s[i], s[i].error, l[i]);
        *density += ht_surface_at(&s[i], s[i].density, l[i]) / BLOCKS;
    }
}

/* One threshold a block: errors grow faster and faster with what is left out, and greedy steps are the best there are.
 */
Test(allocate, without_gates_nothing_is_better)
{
    block b[BLOCKS];
    ht_surface s[BLOCKS];
    ht_level l[BLOCKS];

    for (int round = 0; round < 20; round++) {
        for (int i = 0; i < BLOCKS; i++) {
            s[i] = surface(&b[i], 0, 0.5 * i);
            s[i].cost = 0.2 + uniform();
        }
        for (double density = 0.9; density > 0.25; density -= 0.13) {
            double bytes, error, reached;
            ht_allocate(s, BLOCKS, density, l);
            sums(s, l, &bytes, &error, &reached);
            cr_assert(fabs(reached - density) < 1e-9, "density %g, not %g", reached, density);
            cr_assert(error <= exhaustive(s, bytes) + 1e-12, "round %d, density %g: %g", round, density, error);
        }
    }
}

/* Two thresholds a block: neurons below one are often below the other, so that greedy steps may miss the best by a
 * little. */
Test(allocate, with_gates_it_is_nearly_the_best)
{
    block b[BLOCKS];
    ht_surface s[BLOCKS];
    ht_level l[BLOCKS];
    double worst = 0;

    for (int round = 0; round < 6; round++) {
        for (int i = 0; i < BLOCKS; i++) {
            s[i] = surface(&b[i], 1, 0.4 * i);
            s[i].cost = 0.2 + uniform();
        }
        for (double density = 0.8; density > 0.25; density -= 0.2) {
            double bytes, error, reached;
            ht_allocate(s, BLOCKS, density, l);
            sums(s, l, &bytes, &error, &reached);
            cr_assert(fabs(reached - density) < 1e-9, "density %g, not %g", reached, density);
            worst = fmax(worst, error / exhaustive(s, bytes));
        }
    }
    cr_assert(worst < 1.1, "%g times the best error", worst);
}

/* A dearer block gives up less; a density that cannot be reached takes the last levels; 1 takes none. */
Test(allocate, goes_by_cost_and_ends)
{
    block b[BLOCKS];
    ht_surface s[BLOCKS];
    ht_level l[BLOCKS];

    for (int i = 0; i < BLOCKS; i++) {
        state = 99;
        s[i] = surface(&b[i], 1, 0.3);
        s[i].cost = i == 1 ? 30 : 1;
    }
    ht_allocate(s, BLOCKS, 0.5, l);
    cr_assert(ht_surface_at(&s[1], s[1].density, l[1]) > ht_surface_at(&s[0], s[0].density, l[0]) + 0.1);
    ht_allocate(s, BLOCKS, 0, l);
    for (int i = 0; i < BLOCKS; i++)
        cr_assert(l[i].gate == LEVELS - 1 && l[i].hidden == LEVELS - 1);
    ht_allocate(s, BLOCKS, 1, l);
    for (int i = 0; i < BLOCKS; i++)
        cr_assert(l[i].gate == 0 && l[i].hidden == 0);
}
