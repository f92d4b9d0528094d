// LANES rows solved exactly and together: each one's normal equations, then one factorization of all.
//
// A row with n >= rank ratings, and every row of implicit feedback, solves (base + F' F + reg m I) x = F' w of order
// rank, F being the factors of its columns, [n, rank]. One with fewer solves (F F' + reg n I) z = r of order n, which
// is less work, and has x = F' z.
#pragma once

#include "cholesky.h"
#include "normal.h"
#include "ratings.h"

// Ratings of a row whose columns are gathered together: at rank 128, 64 KiB.
#define PATCH 128

typedef struct {
    float *patch;    // [max(PATCH, width), width]
    float *normals;  // LANES normal matrices, [rank rounded up to ROWS, width] each
    float *rights;   // [LANES, width]
    vec *system;     // the interleaved matrices
    vec *solution;   // [width]
} Group;

static inline int is_dual(const Problem *p, int n) { return !p->implicit && n < p->rank; }

static inline int order_of(const Problem *p, int n) { return is_dual(p, n) ? n : p->rank; }

static inline float *normal_of(const Problem *p, const Group *g, int lane) {
    return g->normals + (size_t)lane * round_up(p->rank, ROWS) * p->width;
}

static void add_dual(const Problem *p, const Block *b, int from, int until, const Group *g, int stride, float *normal,
                     float *right) {
    gather_transposed(p, b, from, until, g->patch, stride);
    add_products(g->patch, p->rank, stride, normal, until - from);
    memcpy(right, b->ratings + from, 4 * (until - from));
}

static void add_primal(const Problem *p, const Block *b, int from, int until, const Group *g, float *normal,
                       float *right) {
    float weights[PATCH];
    for (int start = from; start < until; start += PATCH) {
        int end = start + PATCH < until ? start + PATCH : until;
        gather(p, b, start, end, g->patch);
        for (int j = start; j < end; j++) weights[j - start] = weight(p, b->ratings[j]);
        add_weighted(g->patch, end - start, p->width, weights, right);
        if (p->implicit)
            for (int j = start; j < end; j++) {
                float scale = sqrtf(confidence(p, b->ratings[j]));
                vec *factors = (vec *)(g->patch + (size_t)(j - start) * p->width);
                for (int v = 0; v < p->width / LANES; v++) factors[v] *= scale;
            }
        add_products(g->patch, end - start, p->width, normal, p->rank);
    }
}

// The matrices of all lanes, [order, stride] each, to the form of cholesky.h.
static void interleave(const Problem *p, const Group *g, int blocks, int stride) {
    for (int i = 0; i < TILE * blocks; i++) {
        vec *to = block_row(g->system, i / TILE) + (i % TILE) * TILE * (i / TILE + 1);
        int width = TILE * (i / TILE + 1);
        for (int at = 0; at < width; at += LANES) {
            vec t[LANES];
            for (int lane = 0; lane < LANES; lane++)
                t[lane] = *(vec *)(normal_of(p, g, lane) + (size_t)i * stride + at);
            transpose(t);
            memcpy(to + at, t, sizeof(vec) * (at + LANES < width ? LANES : width - at));
        }
    }
}

static void to_lanes(const float *rows, int stride, vec *lanes) {
    for (int at = 0; at < stride; at += LANES) {
        for (int lane = 0; lane < LANES; lane++) lanes[at + lane] = *(vec *)(rows + lane * stride + at);
        transpose(lanes + at);
    }
}

static void from_lanes(vec *lanes, int stride, float *rows) {
    for (int at = 0; at < stride; at += LANES) {
        transpose(lanes + at);
        for (int lane = 0; lane < LANES; lane++) *(vec *)(rows + lane * stride + at) = lanes[at + lane];
    }
}

// Solve up to LANES rows, in descending order of their number of ratings, into factors, [rows, rank]. Adds their
// squared errors to loss; 0 if a matrix was not positive definite.
static int solve_group(const Problem *p, const Block *b, const int32_t *rows, int count, const Group *g, float *factors,
                       double *loss) {
    int order = 0;
    for (int lane = 0; lane < count; lane++) {
        int own = order_of(p, b->starts[rows[lane] + 1] - b->starts[rows[lane]]);
        order = own > order ? own : order;
    }
    int blocks = round_up(order, TILE) / TILE, stride = round_up(order, LANES);
    float shrinkage[LANES];
    double alone[LANES];
    memset(g->rights, 0, (size_t)4 * LANES * stride);
    for (int lane = 0; lane < LANES; lane++) {
        float *normal = normal_of(p, g, lane), *right = g->rights + lane * stride;
        int own = 0;
        if (lane < count) {
            int from = b->starts[rows[lane]], until = b->starts[rows[lane] + 1];
            Totals all = totals(p, b->ratings + from, until - from);
            shrinkage[lane] = p->reg * all.count;
            alone[lane] = all.alone;
            own = order_of(p, until - from);
            memset(normal, 0, (size_t)4 * round_up(own, ROWS) * stride);
            if (p->implicit)
                for (int i = 0; i < own; i++)
                    memcpy(normal + (size_t)i * stride, p->base + (size_t)i * p->rank, 4 * (i + 1));
            if (is_dual(p, until - from))
                add_dual(p, b, from, until, g, stride, normal, right);
            else
                add_primal(p, b, from, until, g, normal, right);
            for (int i = 0; i < own; i++) normal[(size_t)i * stride + i] += shrinkage[lane];
        }
        for (int i = own; i < TILE * blocks; i++) {  // a system of lower order goes on with the unit matrix
            memset(normal + (size_t)i * stride, 0, 4 * stride);
            normal[(size_t)i * stride + i] = 1;
        }
    }
    interleave(p, g, blocks, stride);
    to_lanes(g->rights, stride, g->solution);
    ivec positive = factor(g->system, blocks);
    substitute(g->system, blocks, g->solution);
    // The right sides are still needed, so the solutions go to the first normal matrices' place.
    from_lanes(g->solution, stride, g->normals);
    for (int lane = 0; lane < count; lane++) {
        if (!positive[lane]) return 0;
        int from = b->starts[rows[lane]], n = b->starts[rows[lane] + 1] - from;
        float *x = factors + (size_t)rows[lane] * p->rank;
        const float *solved = g->normals + lane * stride, *right = g->rights + lane * stride;
        if (is_dual(p, n)) {
            combine(p, b, from, from + n, solved, (float *)g->solution);
            memcpy(x, g->solution, 4 * p->rank);
            // What is left of r is reg n times the dual solution.
            *loss += (double)shrinkage[lane] * shrinkage[lane] * dot(solved, solved, n);
        } else {
            memcpy(x, solved, 4 * p->rank);
            *loss += alone[lane] - dot(right, x, p->rank) - shrinkage[lane] * dot(x, x, p->rank);
        }
    }
    return 1;
}
