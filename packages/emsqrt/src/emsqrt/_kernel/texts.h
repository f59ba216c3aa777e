/* Texts from their places in a dictionary, side by side as Arrow lays them out. */
#ifndef EMSQRT_TEXTS_H
#define EMSQRT_TEXTS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* `count` texts in `bytes`: that at i lies from ends[i] to ends[i + 1]. */
typedef struct {
    const uint8_t *bytes;
    const int32_t *ends;
    size_t count;
} em_texts;

/* Return whether texts lie in so many bytes, one behind the other. */
bool em_texts_are_within(const em_texts *texts, size_t bytes);

/* Write where the text of each place ends, behind a zero; return the bytes of all of them, or -1
 * where a place is none or they are more than Arrow's texts may be. */
int64_t em_texts_measure(const em_texts *texts, const int32_t *places, size_t rows, int32_t *ends);

/* Write the text of each place, all of which were measured to be `bytes`; return whether they are.
 */
bool em_texts_spread(const em_texts *texts, const int32_t *places, size_t rows, uint8_t *out,
                     size_t bytes);

/* The bytes of the longest of so many texts, or of all, each behind its size as four bytes, lowest
 * first, as Parquet's plain encoding has them; -1 where the bytes end within one. */
#define EM_ALL_TEXTS SIZE_MAX
int64_t em_texts_longest(const uint8_t *bytes, size_t size, size_t count);

#endif
