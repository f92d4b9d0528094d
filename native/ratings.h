// A row's ratings and the factors of the columns that it rated.
#pragma once

#include <math.h>

#include "lanes.h"

typedef struct {
    int rank;
    int width;  // rank, rounded up to whole vectors
    float reg;
    int implicit;
    float alpha;
    const float *base;  // of implicit feedback, the lower triangle of the sum over all columns y of y y', [rank, rank]
} Problem;

// Ratings of row i are starts[i] to starts[i + 1]; the factors of rating j's column are table[sources[j]], readable
// a vector beyond the last.
typedef struct {
    const int32_t *starts;
    const int32_t *sources;
    const float *ratings;
    const float *table;
} Block;

// What Problem.scala says of a rating: its confidence beyond 1, and its factor in the right side.
static inline float confidence(const Problem *p, float rating) { return p->implicit ? p->alpha * fabsf(rating) : 1; }

static inline float weight(const Problem *p, float rating) {
    if (!p->implicit) return rating;
    return rating > 0 ? 1 + confidence(p, rating) : 0;
}

typedef struct {
    int count;      // ratings that count for the regularisation
    double alone;   // the error of a row without factors
} Totals;

static inline Totals totals(const Problem *p, const float *ratings, int n) {
    if (!p->implicit) return (Totals){n, dot(ratings, ratings, n)};
    Totals t = {0, 0};
    for (int j = 0; j < n; j++) {
        t.count += ratings[j] > 0;
        t.alone += weight(p, ratings[j]);
    }
    return t;
}

// The lanes of a row's last vector that hold factors.
static inline ivec last_lanes(const Problem *p) {
    ivec mask;
    for (int i = 0; i < LANES; i++) mask[i] = p->width - LANES + i < p->rank ? -1 : 0;
    return mask;
}

static inline vec load_factors(const Problem *p, const float *factors, int at, ivec last) {
    vec v = *(const loose *)(factors + at);
    return at + LANES < p->width ? v : (vec)((ivec)v & last);
}

// x, [width], becomes the sum over ratings `from` to `until` of weights[j - from] times their columns' factors.
static inline void combine(const Problem *p, const Block *b, int from, int until, const float *weights, float *x) {
    for (int at = 0; at < p->width; at += LANES) {
        vec even = {0}, odd = {0};
        int j = from;
        for (; j + 1 < until; j += 2) {
            even += weights[j - from] * *(const loose *)(b->table + (size_t)b->sources[j] * p->rank + at);
            odd += weights[j + 1 - from] * *(const loose *)(b->table + (size_t)b->sources[j + 1] * p->rank + at);
        }
        if (j < until) even += weights[j - from] * *(const loose *)(b->table + (size_t)b->sources[j] * p->rank + at);
        *(vec *)(x + at) = even + odd;
    }
}

// patch, [until - from, width], becomes the factors of the columns rated by ratings `from` to `until`.
static inline void gather(const Problem *p, const Block *b, int from, int until, float *patch) {
    ivec last = last_lanes(p);
    for (int j = from; j < until; j++) {
        const float *factors = b->table + (size_t)b->sources[j] * p->rank;
        for (int at = 0; at < p->width; at += LANES)
            *(vec *)(patch + (size_t)(j - from) * p->width + at) = load_factors(p, factors, at, last);
    }
}

// patch, [width, stride], becomes the same transposed, with zeros after the last rating up to a whole vector.
static inline void gather_transposed(const Problem *p, const Block *b, int from, int until, float *patch, int stride) {
    for (int j = from; j < until; j += LANES) {
        const float *factors[LANES];
        for (int i = 0; i < LANES; i++) factors[i] = b->table + (size_t)b->sources[j + i < until ? j + i : j] * p->rank;
        ivec there;
        for (int i = 0; i < LANES; i++) there[i] = j + i < until ? -1 : 0;
        for (int at = 0; at < p->rank; at += LANES) {
            vec t[LANES];
#pragma unroll
            for (int i = 0; i < LANES; i++) t[i] = *(const loose *)(factors[i] + at);
            transpose(t);
            float *to = patch + (size_t)at * stride + j - from;
#pragma unroll
            for (int i = 0; i < LANES; i++) *(vec *)(to + i * stride) = (vec)((ivec)t[i] & there);
        }
    }
}
