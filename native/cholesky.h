// Cholesky's factorization of LANES systems at once, a system in each lane.
//
// A system of `blocks` blocks of TILE rows is a lower triangle of TILE x TILE tiles: block row i has TILE rows of
// TILE (i + 1) vectors, one block row after the other.
#pragma once

#include "lanes.h"

#define TILE 4

static inline vec *block_row(vec *system, int i) { return system + TILE * TILE * i * (i + 1) / 2; }

static inline size_t system_vectors(int blocks) { return (size_t)TILE * TILE * blocks * (blocks + 1) / 2; }

// tile -= rows columns', over `depth` columns.
static inline void subtract(vec tile[TILE][TILE], const vec *rows, int row_width, const vec *columns, int column_width,
                            int depth) {
    for (int p = 0; p < depth; p++) {
#pragma unroll
        for (int r = 0; r < TILE; r++)
#pragma unroll
            for (int c = 0; c < TILE; c++) tile[r][c] -= rows[r * row_width + p] * columns[c * column_width + p];
    }
}

// tile becomes tile L'^-1, L being the factored tile on the diagonal.
static inline void divide(vec tile[TILE][TILE], const vec *diagonal, int width) {
#pragma unroll
    for (int c = 0; c < TILE; c++)
#pragma unroll
        for (int r = 0; r < TILE; r++) {
#pragma unroll
            for (int p = 0; p < c; p++) tile[r][c] -= tile[r][p] * diagonal[c * width + p];
            tile[r][c] *= diagonal[c * width + c];
        }
}

// The lanes that are positive definite stay -1 in the result.
static inline ivec factor_diagonal(vec tile[TILE][TILE]) {
    ivec positive = {0};
    positive -= 1;
#pragma unroll
    for (int c = 0; c < TILE; c++)
#pragma unroll
        for (int r = c; r < TILE; r++) {
#pragma unroll
            for (int p = 0; p < c; p++) tile[r][c] -= tile[r][p] * tile[c][p];
            if (r == c) {
                positive &= tile[c][c] > 0;
                tile[c][c] = 1 / __builtin_elementwise_sqrt(tile[c][c]);
            } else {
                tile[r][c] *= tile[c][c];
            }
        }
    return positive;
}

// A = L L', L in A's place with the inverses of its diagonal. -1 in the lanes where A was positive definite.
static ivec factor(vec *system, int blocks) {
    ivec positive = {0};
    positive -= 1;
    for (int i = 0; i < blocks; i++) {
        vec *rows = block_row(system, i);
        int row_width = TILE * (i + 1);
        for (int j = 0; j <= i; j++) {
            vec *columns = block_row(system, j);
            int column_width = TILE * (j + 1);
            vec tile[TILE][TILE];
#pragma unroll
            for (int r = 0; r < TILE; r++)
#pragma unroll
                for (int c = 0; c < TILE; c++) tile[r][c] = rows[r * row_width + TILE * j + c];
            subtract(tile, rows, row_width, columns, column_width, TILE * j);
            if (j < i)
                divide(tile, columns + TILE * j, column_width);
            else
                positive &= factor_diagonal(tile);
#pragma unroll
            for (int r = 0; r < TILE; r++)
#pragma unroll
                for (int c = 0; c < TILE; c++) rows[r * row_width + TILE * j + c] = tile[r][c];
        }
    }
    return positive;
}

// x = (L L')^-1 x.
static void substitute(vec *system, int blocks, vec *x) {
    for (int i = 0; i < blocks; i++) {
        const vec *rows = block_row(system, i);
        int width = TILE * (i + 1);
        vec *part = x + TILE * i;
        for (int p = 0; p < TILE * i; p++)
#pragma unroll
            for (int r = 0; r < TILE; r++) part[r] -= rows[r * width + p] * x[p];
        for (int r = 0; r < TILE; r++) {
            for (int p = 0; p < r; p++) part[r] -= rows[r * width + TILE * i + p] * part[p];
            part[r] *= rows[r * width + TILE * i + r];
        }
    }
    for (int i = blocks - 1; i >= 0; i--) {
        const vec *rows = block_row(system, i);
        int width = TILE * (i + 1);
        for (int r = TILE - 1; r >= 0; r--) {
            const vec *row = rows + r * width;
            vec solved = x[TILE * i + r] *= row[TILE * i + r];
            for (int p = 0; p < TILE * i + r; p++) x[p] -= row[p] * solved;
        }
    }
}
