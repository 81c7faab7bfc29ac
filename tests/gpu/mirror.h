/* SPDX-License-Identifier: MIT
 *
 * An executor for tests that runs what the engine submits on a device, although the engine keeps everything in host
 * memory: before a list of operations its buffers are copied to the device, afterwards back. Weights are copied once. */
#ifndef HT_TESTS_GPU_MIRROR_H
#define HT_TESTS_GPU_MIRROR_H

#include "engine/objects.h"
#include "tests/gpu/gpu_test.h"

typedef struct mirror mirror;
/* Takes the place of the session's executor, which still runs what only the host can (HT_OP_TRANSPOSE, HT_OP_SIGNS). */
mirror *mirror_open(ht_gpu *g, hearth_session *s);
void mirror_close(mirror *m); /* before the session and the device */
uint64_t mirror_n_ops(const mirror *m, ht_op_kind kind);

#endif
