/* SPDX-License-Identifier: MIT
 * Sharing a density out among blocks; see predictor.h. */
#include <math.h>

#include "predictor/predictor.h"

static double bytes_at(const ht_surface *s, uint32_t gate, uint32_t hidden)
{
    return s->neurons * (s->up_bytes * s->rows[gate] + s->down_bytes * s->density[gate * s->n_hidden + hidden]);
}

double ht_surface_at(const ht_surface *s, const double *grid, ht_level at)
{
    const uint32_t g = (uint32_t)at.gate, h = (uint32_t)at.hidden, w = s->n_hidden;
    const uint32_t g1 = g + 1 < s->n_gate ? g + 1 : g, h1 = h + 1 < w ? h + 1 : h;
    const double x = at.gate - g, y = at.hidden - h;

    return (1 - x) * ((1 - y) * grid[g * w + h] + y * grid[g * w + h1]) +
           x * ((1 - y) * grid[g1 * w + h] + y * grid[g1 * w + h1]);
}

double ht_surface_rows(const ht_surface *s, double gate)
{
    const uint32_t g = (uint32_t)gate, g1 = g + 1 < s->n_gate ? g + 1 : g;
    return s->rows[g] + (gate - g) * (s->rows[g1] - s->rows[g]);
}

/* Loss per byte that the step to (gate, hidden) costs; a step that saves nothing is free, or not worth any loss. */
static double slope(const ht_surface *s, uint32_t g0, uint32_t h0, uint32_t g1, uint32_t h1)
{
    const double saved = bytes_at(s, g0, h0) - bytes_at(s, g1, h1);
    const double loss = s->cost * (s->error[g1 * s->n_hidden + h1] - s->error[g0 * s->n_hidden + h0]);
    return saved > 0 ? loss / saved : loss > 0 ? INFINITY : -INFINITY;
}

void ht_allocate(const ht_surface *s, uint32_t n, double density, ht_level *level)
{
    double active = 0, neurons = 0;

    for (uint32_t i = 0; i < n; i++) {
        level[i] = (ht_level){ 0, 0 };
        neurons += s[i].neurons;
        active += s[i].neurons * s[i].density[0];
    }
    while (active > density * neurons) {
        double least = INFINITY;
        uint32_t best = n;
        bool by_gate = false;
        for (uint32_t i = 0; i < n; i++) {
            const uint32_t g = (uint32_t)level[i].gate, h = (uint32_t)level[i].hidden;
            const double a = g + 1 < s[i].n_gate ? slope(&s[i], g, h, g + 1, h) : INFINITY;
            const double b = h + 1 < s[i].n_hidden ? slope(&s[i], g, h, g, h + 1) : INFINITY;
            if ((a < b ? a : b) < least) {
                least = a < b ? a : b;
                best = i;
                by_gate = a < b;
            }
        }
        if (best == n)
            return; /* every level is the last */
        const ht_surface *b = &s[best];
        ht_level *l = &level[best];
        const double before = active, was = b->density[(uint32_t)l->gate * b->n_hidden + (uint32_t)l->hidden];
        *(by_gate ? &l->gate : &l->hidden) += 1;
        active += b->neurons * (b->density[(uint32_t)l->gate * b->n_hidden + (uint32_t)l->hidden] - was);
        if (active < density * neurons) /* the last step goes as far as it is needed */
            *(by_gate ? &l->gate : &l->hidden) -= (density * neurons - active) / (before - active);
    }
}
