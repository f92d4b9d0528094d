// The lower triangle of a sum of outer products, by tiles that stay in registers.
#pragma once

#include "lanes.h"

#define ROWS 8
#define VECTORS 3

// normal[i..i+rows, at..] += the sum over m of patch[m, i..]' patch[m, at..], `vectors` vectors wide.
static inline __attribute__((always_inline)) void add_tile(const float *patch, int count, int stride, float *normal,
                                                           int i, int at, int rows, int vectors) {
    vec tile[ROWS][VECTORS];
#pragma unroll
    for (int r = 0; r < rows; r++)
#pragma unroll
        for (int v = 0; v < vectors; v++) tile[r][v] = (vec){0};  // its own sum: many small ones lose less than one long one
    for (int m = 0; m < count; m++) {
        const float *row = patch + (size_t)m * stride;
        vec right[VECTORS];
#pragma unroll
        for (int v = 0; v < vectors; v++) right[v] = *(const vec *)(row + at + v * LANES);
#pragma unroll
        for (int r = 0; r < rows; r++)
#pragma unroll
            for (int v = 0; v < vectors; v++) tile[r][v] += row[i + r] * right[v];
    }
#pragma unroll
    for (int r = 0; r < rows; r++)
#pragma unroll
        for (int v = 0; v < vectors; v++) *(vec *)(normal + (size_t)(i + r) * stride + at + v * LANES) += tile[r][v];
}

static inline __attribute__((always_inline)) void add_rows(const float *patch, int count, int stride, float *normal,
                                                           int i, int rows) {
    int vectors = (i + rows - 1) / LANES + 1, at = 0;
    for (; vectors >= VECTORS; vectors -= VECTORS, at += VECTORS * LANES)
        add_tile(patch, count, stride, normal, i, at, rows, VECTORS);
    if (vectors == 2) add_tile(patch, count, stride, normal, i, at, rows, 2);
    if (vectors == 1) add_tile(patch, count, stride, normal, i, at, rows, 1);
}

// normal, [order, stride], gets the outer products of `count` rows of patch, [count, stride]. Written are whole
// vectors, and whole tiles of ROWS rows.
static void add_products(const float *patch, int count, int stride, float *normal, int order) {
    for (int i = 0; i < order; i += ROWS)
        if (order - i > ROWS / 2)
            add_rows(patch, count, stride, normal, i, ROWS);
        else
            add_rows(patch, count, stride, normal, i, ROWS / 2);
}

// right, [stride], gets the sum over the rows of patch, [count, stride], of weights[m] patch[m].
static inline void add_weighted(const float *patch, int count, int stride, const float *weights, float *right) {
    for (int at = 0; at < stride; at += LANES) {
        vec even = {0}, odd = {0};
        int m = 0;
        for (; m + 1 < count; m += 2) {
            even += weights[m] * *(const vec *)(patch + (size_t)m * stride + at);
            odd += weights[m + 1] * *(const vec *)(patch + (size_t)(m + 1) * stride + at);
        }
        if (m < count) even += weights[m] * *(const vec *)(patch + (size_t)m * stride + at);
        *(vec *)(right + at) += even + odd;
    }
}
