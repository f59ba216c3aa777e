/* Decode dictionary-encoded texts: copy the text of each index into a contiguous Arrow buffer. */
#ifndef EMSQRT_TEXTS_H
#define EMSQRT_TEXTS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* A dictionary of `count` texts in `bytes`: text i is bytes[ends[i] .. ends[i + 1]). */
typedef struct {
    const uint8_t *bytes;
    const int32_t *ends;
    size_t count;
} em_texts;

/* Return whether the texts ascend and are within `bytes` bytes. */
bool em_texts_are_within(const em_texts *texts, size_t bytes);

/* Write Arrow's offsets for the texts of these indices, after a leading zero; return the bytes of
 * all texts, or -1 when an index is out of range or the texts exceed Arrow's limit. */
int64_t em_texts_measure(const em_texts *texts, const int32_t *places, size_t rows, int32_t *ends);

/* Copy the text of each index; return whether they have the `bytes` that em_texts_measure()
 * computed. */
bool em_texts_gather(const em_texts *texts, const int32_t *places, size_t rows, uint8_t *out,
                     size_t bytes);

/* Return the bytes of the longest of `count` texts, or of all with EM_ALL_TEXTS, in Parquet's plain
 * encoding: each follows its length as four bytes, little-endian. -1 when the bytes end within a
 * text. */
#define EM_ALL_TEXTS SIZE_MAX
int64_t em_texts_longest(const uint8_t *bytes, size_t size, size_t count);

#endif
