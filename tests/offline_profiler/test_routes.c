/* SPDX-License-Identifier: MIT
 * Recorded routing against the engine: what it reads of a mixture that does not fit is what the simulator says. */
#include "engine/disk_impl.h"
#include "engine/objects.h"
#include "tests/offline_profiler/profiler_util.h"

static const char text[] =
    "Once upon a time there was an old woman who lived in a little house at the edge of the forest. She had three sons, and the "
    "youngest of them was so kind that all the animals loved him. One morning he said to his mother, I will go out into the "
    "world and seek my fortune. Take this bread, said she, and be good to whomever you meet. So he went his way, and when he "
    "had gone a little he came to a bridge, and under the bridge sat a grey fox who wept bitterly. What ails you, asked the boy.";

typedef struct misses { uint64_t engine, simulated, best, uses, slots; } misses;

/* Token by token, so that every pass is one of generation. */
static misses count(uint64_t ram)
{
    const char *path = HEARTH_MODEL_DIR "/hearth-story-moe.gguf";
    hearth_error err;
    hearth_model *m;
    hearth_session *s;
    hearth_routes *r;
    hearth_token *ids;
    size_t n;
    hearth_model_params p = { .size = sizeof p, .threads = 1, .io = HEARTH_IO_DIRECT, .ram_bytes = ram, .prefetch = HEARTH_PREFETCH_OFF };
    hearth_session_params sp = { .size = sizeof sp, .n_ctx = 256 };
    hearth_stats stats = { .size = sizeof stats };
    hearth_cache_result now = { .size = sizeof now };
    hearth_routes_info info = { .size = sizeof info };
    misses out = { 0 };

    if (access(path, R_OK) != 0)
        cr_skip_test("%s is not there", path);
    cr_assert_eq(hearth_model_open(&m, path, &p, &err), HEARTH_OK, "%s", err.text);
    cr_assert_eq(hearth_session_open(&s, m, &sp, &err), HEARTH_OK, "%s", err.text);
    cr_assert_eq(hearth_routes_open(&r, m, &err), HEARTH_OK, "%s", err.text);
    cr_assert_eq(hearth_routes_record(r, s), HEARTH_OK);
    m->store.disk->n_fill = 0; /* no more of the first filling, which is what happens to be there in time */
    cr_assert_eq(hearth_tokenize(m, text, sizeof text - 1, true, false, &ids, &n, &err), HEARTH_OK, "%s", err.text);
    cr_assert_gt(n, 100u);
    for (size_t i = 0; i < n; i++)
        cr_assert_eq(hearth_session_feed(s, ids + i, 1, NULL, NULL, &err), HEARTH_OK, "%s", err.text);
    hearth_session_get_stats(s, &stats);
    for (uint64_t i = 0; i < 17; i++)
        out.engine += i * stats.layers_missing[i];
    const uint64_t slots = ht_disk_budget(m->store.disk) / ht_disk_unit_bytes(m->store.disk, 0);
    hearth_routes_get_info(r, &info);
    const uint64_t budget = slots * (info.expert_bytes / ((uint64_t)info.n_layer * info.n_expert));
    cr_assert_eq(hearth_routes_simulate(r, HEARTH_CACHE_HEAT, budget, NULL, &now, &err), HEARTH_OK, "%s", err.text);
    out.uses = now.decode_uses;
    out.slots = slots;
    out.simulated = now.decode_uses - now.decode_hits;
    cr_assert_eq(hearth_routes_simulate(r, HEARTH_CACHE_BELADY, budget, NULL, &now, &err), HEARTH_OK, "%s", err.text);
    out.best = now.decode_uses - now.decode_hits;
    cr_assert_eq(out.uses, n * 6 * 2);
    hearth_free(ids);
    hearth_routes_close(&r);
    hearth_session_close(&s);
    hearth_model_close(&m);
    return out;
}

Test(routes, the_engine_reads_what_the_simulator_says)
{
    for (uint64_t ram = 8; ram <= 14; ram += 2) {
        const misses m = count(ram << 20);
        cr_expect(m.engine <= m.simulated + m.slots / 8 && m.engine + m.slots >= m.simulated, "%llu MiB: %llu and %llu of %llu",
                  (unsigned long long)ram, (unsigned long long)m.engine, (unsigned long long)m.simulated,
                  (unsigned long long)m.uses);
        cr_expect_geq(m.engine, m.best);
        cr_log_info("%llu MiB: %llu read of %llu, the optimum %llu\n", (unsigned long long)ram, (unsigned long long)m.engine,
                    (unsigned long long)m.uses, (unsigned long long)m.best);
    }
}
