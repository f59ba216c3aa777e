/* HyperLogLog: validate serialized states and estimate from them. */
#include "hll.h"

#include <math.h>

static double sigma(double x) {
    if (x == 1.0) {
        return (double)__builtin_inf();
    }
    double y = 1.0, z = x, before;
    do {
        x = x * x;
        before = z;
        z = z + x * y;
        y = y + y;
    } while (z != before);
    return z;
}

static double tau(double x) {
    if (x == 0.0 || x == 1.0) {
        return 0.0;
    }
    double y = 1.0, z = 1.0 - x, before;
    do {
        x = sqrt(x);
        before = z;
        y = 0.5 * y;
        z = z - (1.0 - x) * (1.0 - x) * y;
    } while (z != before);
    return z / 3.0;
}

int64_t em_hll_estimate(const uint32_t *counts, int p) {
    const int last = 64 - p + 1;
    const double m = (double)(1u << p);
    double z = m * tau(1.0 - (double)counts[last] / m);
    for (int rank = last - 1; rank >= 1; rank--) {
        z = 0.5 * (z + (double)counts[rank]);
    }
    z = z + m * sigma((double)counts[0] / m);
    const double estimate = 0.72134752044448170367 * m * m / z; /* 1 / (2 ln 2) */
    return (int64_t)(estimate + 0.5);
}

bool em_hll_check(const uint8_t *bytes, size_t size, int p) {
    if (size < EM_HLL_HEAD_BYTES || bytes[0] != p || bytes[1] > 1) {
        return false;
    }
    const uint8_t *body = bytes + EM_HLL_HEAD_BYTES;
    const size_t body_bytes = size - EM_HLL_HEAD_BYTES;
    if (bytes[1] == 1) {
        bool good = body_bytes == (size_t)1 << p;
        for (size_t i = 0; good && i < body_bytes; i++) {
            good = body[i] <= 64 - p + 1;
        }
        return good;
    }
    uint32_t before = 0;
    for (size_t i = 0; i + 3 <= body_bytes; i += 3) {
        const uint32_t entry =
            (uint32_t)body[i] | (uint32_t)body[i + 1] << 8 | (uint32_t)body[i + 2] << 16;
        const uint32_t rank = entry & 63, index = entry >> 6;
        if (rank == 0 || (int)rank > 64 - p + 1 || index >> p != 0 || (i > 0 && index <= before)) {
            return false;
        }
        before = index;
    }
    return body_bytes % 3 == 0 && body_bytes / 3 <= em_hll_sparse_max(p);
}

int64_t em_hll_estimate_bytes(const uint8_t *bytes, size_t size) {
    if (size < 1 || bytes[0] < EM_HLL_P_MIN || bytes[0] > EM_HLL_P_MAX ||
        !em_hll_check(bytes, size, bytes[0])) {
        return -1;
    }
    const int p = bytes[0];
    const uint8_t *body = bytes + EM_HLL_HEAD_BYTES;
    const size_t body_bytes = size - EM_HLL_HEAD_BYTES;
    uint32_t counts[64] = {0};
    if (bytes[1] == 1) {
        for (size_t i = 0; i < body_bytes; i++) {
            counts[body[i]]++;
        }
    } else {
        for (size_t i = 0; i < body_bytes; i += 3) {
            counts[body[i] & 63]++;
        }
        counts[0] = (1u << p) - (uint32_t)(body_bytes / 3);
    }
    return em_hll_estimate(counts, p);
}
