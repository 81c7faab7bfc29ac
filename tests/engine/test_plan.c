/* SPDX-License-Identifier: MIT
 * The plan solver beside the optimum: all placements of small problems, an integer program (GLPK's glpsol, where it is installed)
 * of larger ones, under the same seconds. */
#include <criterion/criterion.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "engine/plan.h"

enum { MAX_LAYERS = 128, MAX_PIECES = 192 };

static uint64_t seed;

static double uniform(void) /* splitmix64 */
{
    uint64_t z = (seed += 0x9e3779b97f4a7c15u);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return (double)((z ^ (z >> 31)) >> 11) * 0x1p-53;
}

static uint32_t upto(uint32_t n) { return (uint32_t)(uniform() * n); }

static ht_plan_layer layers[MAX_LAYERS];
static ht_plan_piece pieces[MAX_LAYERS * MAX_PIECES];

/* Sizes and speeds as machines have them: MiB, GB/s. skew: how uneven pieces are used; 0: all alike. */
static ht_plan_problem some(uint32_t n_layers, uint32_t n_pieces, uint64_t piece_bytes, double skew, bool experts)
{
    const double cpu = 10e9 + 40e9 * uniform(), gpu = cpu * (2 + 20 * uniform()), disk = 0.3e9 + 4e9 * uniform();
    ht_plan_problem p = { .layers = layers, .n_layers = n_layers, .join_seconds = 5e-6 + 60e-6 * uniform(),
                          .hop_seconds = 5e-6 + 40e-6 * uniform(), .fixed_seconds = 1e-5 };
    uint64_t all = 0, trunks = 0;
    for (uint32_t l = 0; l < n_layers; l++) {
        ht_plan_piece *x = pieces + l * MAX_PIECES;
        const uint64_t trunk = (uint64_t)((double)piece_bytes * n_pieces * (0.1 + 0.6 * uniform()));
        const double kv = 0.2 * uniform() * (double)trunk, tilt = skew * (0.5 + uniform());
        layers[l] = (ht_plan_layer){
            .trunk = { .bytes = trunk, .cpu_seconds = (double)trunk / cpu, .gpu_seconds = (double)trunk / gpu + 8e-6, .may = HT_MAY_ALL },
            .mirror_bytes = (uint64_t)kv, .pieces = x, .n_pieces = n_pieces };
        trunks += trunk;
        for (uint32_t i = 0; i < n_pieces; i++) {
            /* a share of tokens; power law over ranks, ranks in any order */
            const double rank = (double)(i + 1) / n_pieces, mean = experts ? 0.1 : 0.4;
            const double use = fmin(1.0, mean * pow(rank, -tilt) * (1 - fmin(tilt, 0.9)) * (0.8 + 0.4 * uniform()));
            x[i] = (ht_plan_piece){ .bytes = piece_bytes, .cpu_seconds = use * (double)piece_bytes / cpu,
                                    .gpu_seconds = use * (double)piece_bytes / gpu,
                                    .disk_seconds = use * (double)piece_bytes / disk, .may = HT_MAY_ALL };
            all += piece_bytes;
        }
    }
    p.ram_fixed = piece_bytes / 2;
    p.vram_fixed = piece_bytes / 3;
    p.vram_bytes = (uint64_t)(uniform() * 1.1 * (double)(all + trunks));
    p.ram_bytes = p.ram_fixed + trunks + (uint64_t)(uniform() * 1.2 * (double)all);
    p.ram_slots = experts ? piece_bytes * 2 : piece_bytes;
    if (p.ram_bytes < p.ram_fixed + trunks + p.ram_slots)
        p.ram_bytes = p.ram_fixed + trunks + p.ram_slots;
    return p;
}

/* The seconds as the header says them, written once more. INFINITY: over a budget. */
static double price(const ht_plan_problem *p, const uint8_t *trunk, const uint8_t *tier, uint32_t stride)
{
    double t = p->fixed_seconds;
    uint64_t vram = 0, ram = p->ram_fixed, in_ram = 0;
    bool at = false, on_disk = false, used = false;
    for (uint32_t l = 0; l < p->n_layers; l++) {
        const ht_plan_layer *y = &p->layers[l];
        double c = 0, g = 0, d = 0;
        uint32_t n = 0;
        const bool gpu = trunk[l] == HT_TIER_VRAM;
        for (uint32_t i = 0; i < y->n_pieces; i++) {
            const ht_plan_piece *x = &y->pieces[i];
            const uint8_t where = tier[l * stride + i];
            if (where == HT_TIER_VRAM) {
                g += x->gpu_seconds;
                vram += x->bytes;
                n++;
            } else {
                c += x->cpu_seconds;
                d += where == HT_TIER_DISK ? x->disk_seconds : 0;
                in_ram += where == HT_TIER_RAM ? x->bytes : 0;
                on_disk |= where == HT_TIER_DISK;
            }
        }
        t += gpu ? y->trunk.gpu_seconds : y->trunk.cpu_seconds;
        t += fmax(fmax(c, g), d) + ((gpu ? n < y->n_pieces : n > 0) ? p->join_seconds : 0) + (gpu != at ? p->hop_seconds : 0);
        vram += gpu ? y->trunk.bytes : 0;
        ram += gpu ? y->mirror_bytes : y->trunk.bytes;
        used |= gpu || n;
        at = gpu;
    }
    t += at ? p->hop_seconds : 0;
    if (on_disk && in_ram < p->ram_slots)
        in_ram = p->ram_slots;
    return (used && vram + p->vram_fixed > p->vram_bytes) || ram + in_ram > p->ram_bytes ? INFINITY : t;
}

static double price_of(const ht_plan_problem *p, const ht_plan *plan)
{
    static uint8_t tier[MAX_LAYERS * MAX_PIECES];
    for (uint32_t l = 0; l < p->n_layers; l++)
        memcpy(tier + l * MAX_PIECES, plan->pieces + plan->first[l], p->layers[l].n_pieces);
    return price(p, plan->trunk, tier, MAX_PIECES);
}

/* All placements. */
static double optimum(const ht_plan_problem *p)
{
    uint8_t trunk[8], tier[8 * MAX_PIECES] = { 0 };
    const uint32_t n = p->layers[0].n_pieces;
    uint64_t ways = 1;
    double best = INFINITY;
    for (uint32_t i = 0; i < n * p->n_layers; i++)
        ways *= 3;
    for (uint64_t w = 0; w < ways; w++) {
        uint64_t rest = w;
        for (uint32_t l = 0; l < p->n_layers; l++)
            for (uint32_t i = 0; i < n; i++, rest /= 3)
                tier[l * MAX_PIECES + i] = (uint8_t)(rest % 3);
        for (uint32_t t = 0; t < 1u << p->n_layers; t++) {
            for (uint32_t l = 0; l < p->n_layers; l++)
                trunk[l] = t >> l & 1 ? HT_TIER_VRAM : HT_TIER_RAM;
            best = fmin(best, price(p, trunk, tier, MAX_PIECES));
        }
    }
    return best;
}

Test(plan, small_problems_beside_all_placements)
{
    double worst = 1, sum = 0;
    const uint32_t cases = 220;
    for (uint32_t i = 0; i < cases; i++) {
        seed = 1000 + i;
        const uint32_t n_layers = 1 + upto(3), n_pieces = n_layers == 1 ? 1 + upto(7) : n_layers == 2 ? 1 + upto(4) : 1 + upto(2);
        const ht_plan_problem p = some(n_layers, n_pieces, 1 << (18 + upto(6)), 1.2 * uniform(), i % 2);
        ht_plan plan;
        ht_error err;
        cr_assert_eq(ht_plan_solve(&plan, &p, &err), HT_OK, "%u: %s", i, err.text);
        const double ours = price_of(&p, &plan), best = optimum(&p);
        cr_assert(isfinite(ours), "%u: over a budget", i);
        cr_assert(fabs(ours - plan.seconds) < 1e-4 * ours);
        const double ratio = ours / best;
        worst = fmax(worst, ratio);
        sum += ratio;
        cr_assert_leq(ratio, 1.02, "case %u: %.3f of the optimum", i, ratio);
        ht_plan_deinit(&plan);
    }
    cr_log_info("%u small problems: worst %.4f, mean %.5f of the optimum", cases, worst, sum / cases);
}

/* The problem for glpsol, in CPLEX's LP format; sizes in MiB, times in microseconds. */
static void write_lp(FILE *f, const ht_plan_problem *p)
{
    const double mib = 1 << 20, us = 1e6;
    const uint32_t n_layers = p->n_layers;

    fprintf(f, "minimize t: ");
    for (uint32_t l = 0; l < n_layers; l++)
        fprintf(f, " %+.9g a%u + F%u + %.9g s%u + %.9g h%u\n",
                us * (layers[l].trunk.gpu_seconds - layers[l].trunk.cpu_seconds), l, l, us * p->join_seconds, l, us * p->hop_seconds, l);
    fprintf(f, " + %.9g h%u\nsubject to\n", us * p->hop_seconds, n_layers);
    for (uint32_t l = 0; l <= n_layers; l++) { /* hops: from the host, to the host */
        fprintf(f, " h%u", l);
        if (l < n_layers)
            fprintf(f, " - a%u", l);
        if (l > 0)
            fprintf(f, " + a%u", l - 1);
        fprintf(f, " >= 0\n h%u", l);
        if (l < n_layers)
            fprintf(f, " + a%u", l);
        if (l > 0)
            fprintf(f, " - a%u", l - 1);
        fprintf(f, " >= 0\n");
    }
    for (uint32_t l = 0; l < n_layers; l++) {
        double cpu = 0, disk = 0;
        for (uint32_t i = 0; i < layers[l].n_pieces; i++) {
            cpu += us * layers[l].pieces[i].cpu_seconds;
            disk += us * layers[l].pieces[i].disk_seconds;
        }
        fprintf(f, " F%u", l);
        for (uint32_t i = 0; i < layers[l].n_pieces; i++)
            fprintf(f, " + %.9g v%u_%u\n", us * layers[l].pieces[i].cpu_seconds, l, i);
        fprintf(f, " >= %.9g\n F%u", cpu, l);
        for (uint32_t i = 0; i < layers[l].n_pieces; i++)
            fprintf(f, " - %.9g v%u_%u\n", us * layers[l].pieces[i].gpu_seconds, l, i);
        fprintf(f, " >= 0\n F%u", l);
        for (uint32_t i = 0; i < layers[l].n_pieces; i++)
            fprintf(f, " + %.9g v%u_%u + %.9g r%u_%u\n", us * layers[l].pieces[i].disk_seconds, l, i,
                    us * layers[l].pieces[i].disk_seconds, l, i);
        fprintf(f, " >= %.9g\n u - a%u >= 0\n", disk, l);
        for (uint32_t i = 0; i < layers[l].n_pieces; i++)
            fprintf(f, " s%u - v%u_%u + a%u >= 0\n s%u + v%u_%u - a%u >= 0\n v%u_%u + r%u_%u <= 1\n u - v%u_%u >= 0\n"
                       " o + v%u_%u + r%u_%u >= 1\n", l, l, i, l, l, l, i, l, l, i, l, i, l, i, l, i, l, i);
    }
    fprintf(f, " %.9g u", (double)p->vram_fixed / mib);
    for (uint32_t l = 0; l < n_layers; l++) {
        fprintf(f, " + %.9g a%u\n", (double)layers[l].trunk.bytes / mib, l);
        for (uint32_t i = 0; i < layers[l].n_pieces; i++)
            fprintf(f, " + %.9g v%u_%u\n", (double)layers[l].pieces[i].bytes / mib, l, i);
    }
    double trunks = 0;
    fprintf(f, " <= %.9g\n R", (double)p->vram_bytes / mib);
    for (uint32_t l = 0; l < n_layers; l++) {
        trunks += (double)layers[l].trunk.bytes / mib;
        fprintf(f, " - %.9g a%u\n", ((double)layers[l].trunk.bytes - (double)layers[l].mirror_bytes) / mib, l);
    }
    fprintf(f, " <= %.9g\n R - %.9g o >= 0\n R", ((double)p->ram_bytes - (double)p->ram_fixed) / mib - trunks, (double)p->ram_slots / mib);
    for (uint32_t l = 0; l < n_layers; l++)
        for (uint32_t i = 0; i < layers[l].n_pieces; i++)
            fprintf(f, " - %.9g r%u_%u\n", (double)layers[l].pieces[i].bytes / mib, l, i);
    fprintf(f, " >= 0\nbinary\n u o");
    for (uint32_t l = 0; l < n_layers; l++) {
        fprintf(f, " a%u s%u h%u\n", l, l, l);
        for (uint32_t i = 0; i < layers[l].n_pieces; i++)
            fprintf(f, " v%u_%u r%u_%u\n", l, i, l, i);
    }
    fprintf(f, " h%u\nend\n", n_layers);
}

/* The integer program's seconds: a placement that glpsol found within two hundredths of its bound. 0: it found none. */
static double integer_program(const ht_plan_problem *p)
{
    char lp[64], out[64], command[300], line[200];
    double best = NAN; /* without what does not depend on the placement */
    snprintf(lp, sizeof lp, "/tmp/hearth-plan-%d.lp", (int)getpid());
    snprintf(out, sizeof out, "/tmp/hearth-plan-%d.out", (int)getpid());
    FILE *f = fopen(lp, "w");
    cr_assert(f);
    write_lp(f, p);
    fclose(f);
    snprintf(command, sizeof command, "glpsol --lp %s -o %s --mipgap 0.02 --tmlim 20 --cuts > /dev/null 2>&1", lp, out);
    const int rc = system(command);
    f = rc == 0 ? fopen(out, "r") : NULL;
    while (f && fgets(line, sizeof line, f))
        if (sscanf(line, "Objective: t = %lf", &best) == 1)
            break;
    if (f)
        fclose(f);
    unlink(lp);
    unlink(out);
    for (uint32_t l = 0; l < p->n_layers; l++)
        best += 1e6 * layers[l].trunk.cpu_seconds;
    return isnan(best) ? 0 : best * 1e-6 + p->fixed_seconds;
}

Test(plan, larger_problems_beside_an_integer_program)
{
    double worst = 0, sum = 0;
    uint32_t found = 0;
    const uint32_t cases = HEARTH_TEST_SANITIZE[0] ? 4 : 50;

    if (system("command -v glpsol > /dev/null 2>&1") != 0)
        cr_skip_test("glpsol (Debian: glpk-utils) is not installed");
    for (uint32_t i = 0; i < cases; i++) {
        seed = 5000 + i;
        const ht_plan_problem p = some(4 + upto(8), 4 + upto(8), 1 << (20 + upto(4)), 1.2 * uniform(), i % 2);
        ht_plan plan;
        ht_error err;
        cr_assert_eq(ht_plan_solve(&plan, &p, &err), HT_OK, "%u: %s", i, err.text);
        const double ours = price_of(&p, &plan), theirs = integer_program(&p);
        cr_assert(isfinite(ours), "%u: over a budget", i);
        ht_plan_deinit(&plan);
        if (theirs <= 0)
            continue;
        found++;
        worst = fmax(worst, ours / theirs);
        sum += ours / theirs;
        cr_assert_leq(ours, 1.05 * theirs, "case %u: %.3f of the integer program's", i, ours / theirs);
    }
    cr_assert_geq(found, cases * 9 / 10, "glpsol solved %u of %u", found, cases);
    cr_log_info("%u larger problems: worst %.4f, mean %.5f of the integer program", found, worst, sum / found);
}

static ht_plan solved(const ht_plan_problem *p)
{
    ht_plan plan;
    ht_error err;
    cr_assert_eq(ht_plan_solve(&plan, p, &err), HT_OK, "%s", err.text);
    cr_assert(isfinite(price_of(p, &plan)), "over a budget");
    cr_assert_leq(plan.ram_bytes, p->ram_bytes);
    cr_assert_leq(plan.vram_bytes, p->vram_bytes);
    return plan;
}

Test(plan, the_same_problem_gives_the_same_plan)
{
    seed = 3;
    const ht_plan_problem p = some(40, 96, 1 << 20, 0.8, false);
    ht_plan a = solved(&p), b = solved(&p);
    cr_assert_arr_eq(a.pieces, b.pieces, 40 * 96);
    cr_assert_arr_eq(a.trunk, b.trunk, 40);
    cr_assert_eq(a.seconds, b.seconds);
    ht_plan_deinit(&a);
    ht_plan_deinit(&b);
}

Test(plan, without_vram_all_is_on_the_host)
{
    seed = 4;
    ht_plan_problem p = some(6, 16, 1 << 20, 0.5, true);
    p.vram_bytes = 0;
    p.ram_bytes = 1ull << 40;
    ht_plan plan = solved(&p);
    for (uint32_t i = 0; i < 6 * 16; i++)
        cr_assert_eq(plan.pieces[i], HT_TIER_RAM);
    cr_assert_eq(plan.vram_bytes, 0);
    cr_assert_eq(plan.disk_bytes, 0);
    ht_plan_deinit(&plan);
}

Test(plan, more_of_a_budget_is_never_slower)
{
    for (uint32_t i = 0; i < 6; i++) {
        double before[2] = { INFINITY, INFINITY };
        for (uint32_t k = 0; k <= 8; k++)
            for (int ram = 0; ram < 2; ram++) {
                seed = 700 + i;
                ht_plan_problem p = some(12, 24, 4 << 20, 0.3 * i, i % 2);
                const uint64_t all = 12ull * 24 * (4 << 20);
                if (ram)
                    p.ram_bytes += all * k / 8;
                else
                    p.vram_bytes = all * k / 6;
                ht_plan plan = solved(&p);
                cr_assert_leq(plan.seconds, before[ram] * 1.003, "%u, %u", i, k);
                before[ram] = fmin(before[ram], plan.seconds);
                ht_plan_deinit(&plan);
            }
    }
}

Test(plan, what_the_user_pins_stays)
{
    seed = 9;
    ht_plan_problem p = some(8, 12, 1 << 20, 1.0, false);
    p.vram_bytes = 1ull << 30;
    for (uint32_t i = 0; i < 12; i++) {
        pieces[2 * MAX_PIECES + i].may = HT_MAY_RAM;
        pieces[3 * MAX_PIECES + i].may = HT_MAY_VRAM;
        pieces[4 * MAX_PIECES + i].may = HT_MAY_DISK;
        pieces[5 * MAX_PIECES + i].may = HT_MAY_DISK | HT_MAY_RAM;
    }
    layers[6].trunk.may = HT_MAY_RAM;
    layers[7].trunk.may = HT_MAY_VRAM;
    ht_plan plan = solved(&p);
    for (uint32_t i = 0; i < 12; i++) {
        cr_assert_eq(plan.pieces[2 * 12 + i], HT_TIER_RAM);
        cr_assert_eq(plan.pieces[3 * 12 + i], HT_TIER_VRAM);
        cr_assert_eq(plan.pieces[4 * 12 + i], HT_TIER_DISK);
        cr_assert_neq(plan.pieces[5 * 12 + i], HT_TIER_VRAM);
    }
    cr_assert_eq(plan.trunk[6], HT_TIER_RAM);
    cr_assert_eq(plan.trunk[7], HT_TIER_VRAM);
    ht_plan_deinit(&plan);
}

Test(plan, too_little_memory_says_how_much_is_missing)
{
    seed = 11;
    ht_plan_problem p = some(5, 10, 1 << 20, 1.0, true);
    uint64_t trunks = 0;
    for (uint32_t l = 0; l < 5; l++)
        trunks += layers[l].trunk.bytes;
    p.vram_bytes = 0;
    p.ram_bytes = p.ram_fixed + trunks + p.ram_slots - 1000;
    ht_plan plan;
    ht_error err;
    cr_assert_eq(ht_plan_solve(&plan, &p, &err), HT_ENOMEM);
    cr_assert_eq(plan.short_bytes, 1000);
    p.ram_bytes += plan.short_bytes;
    plan = solved(&p);
    ht_plan_deinit(&plan);
    /* With VRAM for it the same is no refusal: trunks go there. */
    p.ram_bytes -= 1000;
    p.vram_bytes = p.vram_fixed + trunks;
    plan = solved(&p);
    ht_plan_deinit(&plan);
}

Test(plan, figures_that_make_no_sense_are_refused)
{
    ht_plan plan;
    ht_error err;
    seed = 12;
    ht_plan_problem p = some(2, 3, 1 << 20, 1.0, true);
    p.join_seconds = NAN;
    cr_assert_eq(ht_plan_solve(&plan, &p, &err), HT_EINVAL);
    p.join_seconds = 0;
    pieces[1].cpu_seconds = -1;
    cr_assert_eq(ht_plan_solve(&plan, &p, &err), HT_EINVAL);
    pieces[1].cpu_seconds = INFINITY;
    cr_assert_eq(ht_plan_solve(&plan, &p, &err), HT_EINVAL);
    pieces[1].cpu_seconds = 1;
    pieces[1].may = 0;
    cr_assert_eq(ht_plan_solve(&plan, &p, &err), HT_EINVAL);
    pieces[1].may = 8;
    cr_assert_eq(ht_plan_solve(&plan, &p, &err), HT_EINVAL);
    pieces[1].may = HT_MAY_ALL;
    layers[1].trunk.may = HT_MAY_DISK;
    cr_assert_eq(ht_plan_solve(&plan, &p, &err), HT_EINVAL);
    p.n_layers = 0;
    cr_assert_eq(ht_plan_solve(&plan, &p, &err), HT_EINVAL);
}

Test(plan, layers_without_pieces)
{
    seed = 13;
    ht_plan_problem p = some(4, 5, 1 << 20, 1.0, false);
    layers[3].n_pieces = 0;
    layers[3].pieces = NULL;
    p.vram_bytes = 1ull << 40;
    ht_plan plan = solved(&p);
    cr_assert_eq(plan.first[3], plan.first[4]);
    ht_plan_deinit(&plan);
}
