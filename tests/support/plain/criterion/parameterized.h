/* SPDX-License-Identifier: MIT
 * See criterion.h beside it. */
#include "criterion.h"
