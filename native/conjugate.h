// A few steps of conjugate gradient from a row's last factors (Takacs, Pilaszy, Tikk 2011,
// doi:10.1145/2043932.2043987): n k operations a step instead of n k^2.
#pragma once

#include "normal.h"
#include "ratings.h"

#define STEPS 3

// The squared residual over the squared right side at which single precision has no more to give.
#define ENOUGH 1e-12

// The same of a right side of zeros, whose solution is 0: below it products of two numbers would be 0.
#define LEAST 1e-30

// Ratings of the longest row whose columns' factors are gathered once for all steps; longer ones are solved exactly.
#define LONGEST 1024

typedef struct {
    float *patch;       // [LONGEST, width]
    float *confidence;  // [LONGEST]
    float *weights;     // [LONGEST]
    float *right, *residual, *direction, *image;  // [width]
    float *base;        // [rank, width], whole; null for explicit feedback
} Conjugate;

// image = (base + reg m I + the sum over ratings of confidence f f') vector.
static void multiply(const Problem *p, const Conjugate *c, int n, float shrinkage, const float *vector) {
    int width = p->width;
    for (int at = 0; at < width; at += LANES) *(vec *)(c->image + at) = shrinkage * *(const vec *)(vector + at);
    if (c->base) add_weighted(c->base, p->rank, width, vector, c->image);
    float products[LONGEST];
    for (int j = 0; j < n; j++) {
        vec product = {0};
        for (int at = 0; at < width; at += LANES)
            product += *(const vec *)(c->patch + (size_t)j * width + at) * *(const vec *)(vector + at);
        products[j] = sum(product) * c->confidence[j];
    }
    add_weighted(c->patch, n, width, products, c->image);
}

// Improve x, [width]; gives the row's squared error.
static double conjugate(const Problem *p, const Block *b, int row, const Conjugate *c, float *x) {
    int from = b->starts[row], n = b->starts[row + 1] - from, width = p->width;
    const float *ratings = b->ratings + from;
    Totals all = totals(p, ratings, n);
    float shrinkage = p->reg * all.count;
    gather(p, b, from, from + n, c->patch);
    for (int j = 0; j < n; j++) {
        c->confidence[j] = confidence(p, ratings[j]);
        c->weights[j] = weight(p, ratings[j]);
    }
    memset(c->right, 0, 4 * width);
    add_weighted(c->patch, n, width, c->weights, c->right);
    multiply(p, c, n, shrinkage, x);
    for (int i = 0; i < width; i++) c->direction[i] = c->residual[i] = c->right[i] - c->image[i];
    double length = dot(c->residual, c->residual, width), enough = ENOUGH * dot(c->right, c->right, width) + LEAST;
    for (int step = 0; step < STEPS && length > enough; step++) {
        multiply(p, c, n, shrinkage, c->direction);
        float rate = length / dot(c->direction, c->image, width);
        for (int i = 0; i < width; i++) {
            x[i] += rate * c->direction[i];
            c->residual[i] -= rate * c->image[i];
        }
        double left = dot(c->residual, c->residual, width);
        float turn = left / length;
        for (int i = 0; i < width; i++) c->direction[i] = c->residual[i] + turn * c->direction[i];
        length = left;
    }
    // A x = right - residual, so no product is needed for x' A x.
    return all.alone - dot(c->right, x, width) - dot(c->residual, x, width) - shrinkage * dot(x, x, width);
}
