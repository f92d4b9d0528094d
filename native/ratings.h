// A row's ratings and the factors of the columns that it rated.
#pragma once

#include <math.h>

#include "lanes.h"

// Rows of factors that are asked from memory before they are needed.
#define AHEAD 8

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

// What Problem.scala says of a rating: its confidence beyond 1, its factor in the right side, whether it counts for
// the regularisation, and the error that a row without factors has from it.
static inline float confidence(const Problem *p, float rating) { return p->implicit ? p->alpha * fabsf(rating) : 1; }

static inline float weight(const Problem *p, float rating) {
    if (!p->implicit) return rating;
    return rating > 0 ? 1 + confidence(p, rating) : 0;
}

static inline int counts(const Problem *p, float rating) { return !p->implicit || rating > 0; }

static inline float alone(const Problem *p, float rating) {
    return p->implicit ? weight(p, rating) : rating * rating;
}

typedef struct {
    int count;      // ratings that count for the regularisation
    double alone;   // the error of a row without factors
} Totals;

static inline Totals totals(const Problem *p, const float *ratings, int n) {
    Totals t = {0, 0};
    for (int j = 0; j < n; j++) {
        t.count += counts(p, ratings[j]);
        t.alone += alone(p, ratings[j]);
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

static inline void ask_for(const Problem *p, const Block *b, int j, int until) {
    if (j + AHEAD < until)
        for (int at = 0; at < p->rank; at += LANES)
            __builtin_prefetch(b->table + (size_t)b->sources[j + AHEAD] * p->rank + at);
}

// patch, [until - from, width], becomes the factors of the columns rated by ratings `from` to `until`.
static inline void gather(const Problem *p, const Block *b, int from, int until, float *patch) {
    ivec last = last_lanes(p);
    for (int j = from; j < until; j++) {
        ask_for(p, b, j, until);
        const float *factors = b->table + (size_t)b->sources[j] * p->rank;
        for (int at = 0; at < p->width; at += LANES)
            *(vec *)(patch + (size_t)(j - from) * p->width + at) = load_factors(p, factors, at, last);
    }
}

// patch, [rank, stride], becomes the same transposed, with zeros after the last rating up to a whole vector.
static inline void gather_transposed(const Problem *p, const Block *b, int from, int until, float *patch, int stride) {
    for (int j = from; j < until; j += LANES) {
        for (int at = 0; at < p->rank; at += LANES) {
            vec t[LANES];
            for (int i = 0; i < LANES; i++) {
                if (at == 0) ask_for(p, b, j + i, until);
                t[i] = j + i < until ? *(const loose *)(b->table + (size_t)b->sources[j + i] * p->rank + at) : (vec){0};
            }
            transpose(t);
            for (int i = 0; i < LANES && at + i < p->rank; i++)
                *(vec *)(patch + (size_t)(at + i) * stride + j - from) = t[i];
        }
    }
}
