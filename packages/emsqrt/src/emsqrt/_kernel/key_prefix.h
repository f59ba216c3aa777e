/* The key prefix of a sort: up to twelve bytes of a key, at the positions where keys differ at all.
 *
 * Only the positions where two of the keys seen so far differ can decide an order, so those are
 * tracked while rows are added. Keys count as padded with zeros: a position past a key's end is a
 * zero byte. The prefixes then have the order of the keys, provided that keys with equal prefixes
 * are compared whole.
 */
#ifndef EMSQRT_KEY_PREFIX_H
#define EMSQRT_KEY_PREFIX_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define EM_DIFFERENCES_BYTES 64u
#define EM_PREFIX_BYTES                                                                            \
    12u /* bytes of a prefix: em_entry holds eight in `high` and four in `low` */

typedef struct {
    bool any;
    uint32_t key_bytes_min, key_bytes_max;
    uint8_t first[EM_DIFFERENCES_BYTES];       /* the first key, padded with zeros */
    uint64_t differ[EM_DIFFERENCES_BYTES / 8]; /* bits in which some key differs from `first` */
} em_key_differences;

/* Positions of key bytes, ascending. */
typedef struct {
    uint32_t count;
    bool decides; /* keys that are equal at these positions are equal */
    uint32_t at[EM_PREFIX_BYTES];
} em_positions;

static inline void em_key_differences_add(em_key_differences *differences, const uint8_t *key,
                                          uint32_t bytes) {
    if (!differences->any) {
        differences->any = true;
        differences->key_bytes_min = differences->key_bytes_max = bytes;
        memcpy(differences->first, key,
               bytes < EM_DIFFERENCES_BYTES ? bytes : EM_DIFFERENCES_BYTES);
        return;
    }
    if (bytes < differences->key_bytes_min) {
        differences->key_bytes_min = bytes;
    } else if (bytes > differences->key_bytes_max) {
        differences->key_bytes_max = bytes;
    }
    const uint32_t seen = bytes < EM_DIFFERENCES_BYTES ? bytes : EM_DIFFERENCES_BYTES;
    uint32_t at = 0, word = 0;
    uint64_t mine, first;
    for (; at + 8 <= seen; at += 8, word++) {
        memcpy(&mine, key + at, 8);
        memcpy(&first, differences->first + at, 8);
        differences->differ[word] |= mine ^ first;
    }
    if (at < seen) {
        mine = 0;
        memcpy(&mine, key + at, seen - at);
        memcpy(&first, differences->first + at, 8);
        differences->differ[word++] |= mine ^ first;
        at += 8;
    }
    if (at <
        differences->key_bytes_max) { /* shorter than another key: its padding of zeros counts */
        for (; word < EM_DIFFERENCES_BYTES / 8; word++) {
            memcpy(&first, differences->first + 8 * word, 8);
            differences->differ[word] |= first;
        }
    }
}

/* Return the first positions where keys differ; `decides` when these are all of them and all keys
 * have one length. */
static inline em_positions em_key_differences_positions(const em_key_differences *differences) {
    em_positions positions = {
        .decides = differences->key_bytes_max <= EM_DIFFERENCES_BYTES &&
                   differences->key_bytes_min == differences->key_bytes_max,
    };
    for (uint32_t at = 0; at < EM_DIFFERENCES_BYTES; at++) {
        if ((differences->differ[at / 8] >> (8 * (at % 8)) & 0xff) == 0) {
            continue;
        }
        if (positions.count == EM_PREFIX_BYTES) {
            positions.decides = false;
            break;
        }
        positions.at[positions.count++] = at;
    }
    return positions;
}

/* Read the key's bytes at the positions as a number: eight in `high`, the rest in `low`. */
static inline void em_positions_gather(const em_positions *positions, const uint8_t *key,
                                       uint32_t bytes, uint64_t *high, uint32_t *low) {
    const uint32_t count = positions->count, upper = count < 8 ? count : 8;
    uint64_t word = 0;
    uint32_t rest = 0, i = 0;
    if (count == 0 || positions->at[count - 1] < bytes) {
        for (; i < upper; i++) {
            word = word << 8 | key[positions->at[i]];
        }
        for (; i < count; i++) {
            rest = rest << 8 | key[positions->at[i]];
        }
    } else {
        for (; i < upper; i++) {
            word = word << 8 | (positions->at[i] < bytes ? key[positions->at[i]] : 0u);
        }
        for (; i < count; i++) {
            rest = rest << 8 | (positions->at[i] < bytes ? key[positions->at[i]] : 0u);
        }
    }
    *high = word;
    *low = rest;
}

#endif
