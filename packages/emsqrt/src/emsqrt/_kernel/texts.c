#include "texts.h"

#include <string.h>

enum { EM_COPIED = 16 }; /* copying this fixed number of bytes is faster than copying fewer */

bool em_texts_are_within(const em_texts *texts, size_t bytes) {
    int32_t before = 0;
    for (size_t i = 0; i <= texts->count; i++) {
        if (texts->ends[i] < before) {
            return false;
        }
        before = texts->ends[i];
    }
    return (size_t)before <= bytes;
}

int64_t em_texts_measure(const em_texts *texts, const int32_t *places, size_t rows, int32_t *ends) {
    int64_t total = ends[0] = 0;
    for (size_t row = 0; row < rows; row++) {
        const size_t place = (size_t)places[row];
        if (place >= texts->count) {
            return -1;
        }
        total += texts->ends[place + 1] - texts->ends[place];
        if (total > INT32_MAX) {
            return -1;
        }
        ends[row + 1] = (int32_t)total;
    }
    return total;
}

bool em_texts_gather(const em_texts *texts, const int32_t *places, size_t rows, uint8_t *out,
                     size_t bytes) {
    const size_t held = (size_t)texts->ends[texts->count];
    size_t at = 0;
    for (size_t row = 0; row < rows; row++) {
        const size_t place = (size_t)places[row];
        if (place >= texts->count) {
            return false;
        }
        const size_t begin = (size_t)texts->ends[place];
        const size_t size = (size_t)texts->ends[place + 1] - begin, left = bytes - at;
        if (size > left) {
            return false;
        }
        if (size == 1) {
            out[at] = texts->bytes[begin];
        } else if (size <= EM_COPIED && left >= EM_COPIED && held - begin >= EM_COPIED) {
            memcpy(out + at, texts->bytes + begin, EM_COPIED);
        } else {
            memcpy(out + at, texts->bytes + begin, size);
        }
        at += size;
    }
    return at == bytes;
}

int64_t em_texts_longest(const uint8_t *bytes, size_t size, size_t count) {
    uint32_t longest = 0, each;
    const bool all = count == EM_ALL_TEXTS;
    for (size_t i = 0, at = 0; all ? at < size : i < count; i++, at += each) {
        if (size - at < sizeof each) {
            return -1;
        }
        memcpy(&each, bytes + at, sizeof each);
        at += sizeof each;
        if (size - at < each) {
            return -1;
        }
        longest = each > longest ? each : longest;
    }
    return longest;
}
