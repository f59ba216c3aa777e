#include "lz4.h"

#include <stdbool.h>
#include <string.h>

/* The format's rules for an encoder: the last bytes are literals, and the last match begins well
 * before the end. */
enum {
    MATCH_MIN = 4,
    LAST_LITERALS = 5,
    MATCH_MARGIN = 12,
    DISTANCE_MAX = 65535,
    NIBBLE_MAX = 15,
    TABLE_BITS = 12,
    SKIP_BITS = 6, /* the search step grows by one every 2^6 misses */
};

static inline uint32_t load32(const uint8_t *at) {
    uint32_t word;
    memcpy(&word, at, sizeof word);
    return word;
}

static inline uint64_t load64(const uint8_t *at) {
    uint64_t word;
    memcpy(&word, at, sizeof word);
    return word;
}

/* Five bytes are hashed: fewer false matches on text than with four. */
static inline uint32_t slot_of(const uint8_t *at) {
    return (uint32_t)((load64(at) << 24) * 889523592379u >> (64 - TABLE_BITS));
}

/* Return the length of the common prefix of `left` and `right`; `left` is the later one and stops
 * at `end`. */
static inline size_t match_length(const uint8_t *left, const uint8_t *right, const uint8_t *end) {
    const uint8_t *start = left;
    while (end - left >= 8) {
        const uint64_t difference = load64(left) ^ load64(right);
        if (difference != 0) {
            return (size_t)(left - start) + (size_t)(__builtin_ctzll(difference) >> 3);
        }
        left += 8;
        right += 8;
    }
    while (left < end && *left == *right) {
        left++;
        right++;
    }
    return (size_t)(left - start);
}

static inline uint8_t *put_length(uint8_t *to, size_t rest) {
    for (; rest >= 255; rest -= 255) {
        *to++ = 255;
    }
    *to++ = (uint8_t)rest;
    return to;
}

static inline size_t length_bytes(size_t length) {
    return length < NIBBLE_MAX ? 0 : (length - NIBBLE_MAX) / 255 + 1;
}

/* Write a token with its literals; NULL when they do not fit. */
static inline uint8_t *put_literals(uint8_t *to, const uint8_t *end, const uint8_t *literals,
                                    size_t count, size_t match) {
    if ((size_t)(end - to) < 1 + length_bytes(count) + count) {
        return NULL;
    }
    const size_t high = count < NIBBLE_MAX ? count : NIBBLE_MAX;
    const size_t low = match < NIBBLE_MAX ? match : NIBBLE_MAX;
    *to++ = (uint8_t)(high << 4 | low);
    if (high == NIBBLE_MAX) {
        to = put_length(to, count - NIBBLE_MAX);
    }
    if (count <= 16 && end - to >= 16 && count > 0) {
        for (size_t i = 0; i < count; i++) {
            to[i] = literals[i];
        }
    } else if (count > 0) {
        memcpy(to, literals, count);
    }
    return to + count;
}

static inline uint8_t *put_match(uint8_t *to, const uint8_t *end, size_t distance, size_t match) {
    if ((size_t)(end - to) < 2 + length_bytes(match)) {
        return NULL;
    }
    *to++ = (uint8_t)distance;
    *to++ = (uint8_t)(distance >> 8);
    return match < NIBBLE_MAX ? to : put_length(to, match - NIBBLE_MAX);
}

/* Find the next match at or after `*at`; false when none begins before `limit`.
 */
static inline bool find_match(uint32_t *table, const uint8_t *source, const uint8_t **at,
                              const uint8_t **found, const uint8_t *limit) {
    const uint8_t *from = *at;
    for (size_t misses = 1u << SKIP_BITS; from < limit; from += misses++ >> SKIP_BITS) {
        uint32_t *slot = &table[slot_of(from)];
        const uint8_t *candidate = source + *slot;
        *slot = (uint32_t)(from - source);
        /* An unset slot holds 0, the start of the source: a valid candidate. */
        if (candidate < from && from - candidate <= DISTANCE_MAX &&
            load32(candidate) == load32(from)) {
            *at = from;
            *found = candidate;
            return true;
        }
    }
    return false;
}

size_t em_lz4_compress(const uint8_t *source, size_t bytes, uint8_t *target, size_t room) {
    uint32_t table[1u << TABLE_BITS];
    const uint8_t *anchor = source, *at = source, *end = source + bytes;
    const uint8_t *target_end = target + room;
    uint8_t *to = target;
    if (bytes > EM_LZ4_BYTES_MAX) {
        return 0;
    }
    if (bytes > MATCH_MARGIN) {
        const uint8_t *limit = end - MATCH_MARGIN, *match_end = end - LAST_LITERALS, *found;
        memset(table, 0, sizeof table);
        while (find_match(table, source, &at, &found, limit)) {
            while (at > anchor && found > source && at[-1] == found[-1]) {
                at--;
                found--;
            }
            const size_t match = match_length(at + MATCH_MIN, found + MATCH_MIN, match_end);
            to = put_literals(to, target_end, anchor, (size_t)(at - anchor), match);
            to = to == NULL ? NULL : put_match(to, target_end, (size_t)(at - found), match);
            if (to == NULL) {
                return 0;
            }
            at += match + MATCH_MIN;
            anchor = at;
            if (at < limit) {
                table[slot_of(at - 2)] = (uint32_t)(at - 2 - source);
            }
        }
    }
    to = put_literals(to, target_end, anchor, (size_t)(end - anchor), 0);
    return to == NULL ? 0 : (size_t)(to - target);
}

/* Add the bytes that continue a length of fifteen; false when the source ends
 * within them. */
static inline bool read_length(const uint8_t **from, const uint8_t *end, size_t *length) {
    uint8_t byte;
    do {
        if (*from == end) {
            return false;
        }
        byte = *(*from)++;
        *length += byte; /* at most 255 a byte of source: cannot wrap */
    } while (byte == 255);
    return true;
}

/* Copy a match, which may overlap its own output; `room` is the number of bytes that may be written
 * at `to`. */
static inline void copy_match(uint8_t *to, size_t distance, size_t length, size_t room) {
    const uint8_t *from = to - distance;
    if (distance >= 16 && room >= length + 16) {
        for (size_t done = 0; done < length; done += 16) {
            memcpy(to + done, from + done, 16);
        }
    } else if (distance >= length) {
        memcpy(to, from, length);
    } else if (distance == 1) {
        memset(to, *from, length);
    } else {
        for (size_t done = 0, period = distance; done < length;) {
            const size_t some = length - done < period ? length - done : period;
            memcpy(to + done, from, some);
            done += some;
            period = distance + done; /* the repeated part is twice as long now */
        }
    }
}

ptrdiff_t em_lz4_decompress(const uint8_t *source, size_t bytes, uint8_t *target, size_t room) {
    const uint8_t *from = source, *end = source + bytes;
    uint8_t *to = target, *target_end = target + room;
    while (from < end) {
        const uint8_t token = *from++;
        size_t literals = token >> 4, match = token & NIBBLE_MAX;
        if (literals == NIBBLE_MAX && !read_length(&from, end, &literals)) {
            return -1;
        }
        const size_t source_left = (size_t)(end - from), target_left = (size_t)(target_end - to);
        if (literals > source_left || literals > target_left) {
            return -1;
        }
        if (literals <= 16 && source_left >= 16 && target_left >= 16) {
            memcpy(to, from, 16);
        } else if (literals > 0) {
            memcpy(to, from, literals);
        }
        from += literals;
        to += literals;
        if (from == end) { /* only the last sequence has no match */
            return match == 0 ? to - target : -1;
        }
        if (end - from < 2) {
            return -1;
        }
        const size_t distance = (size_t)from[0] | (size_t)from[1] << 8;
        from += 2;
        if (match == NIBBLE_MAX && !read_length(&from, end, &match)) {
            return -1;
        }
        match += MATCH_MIN;
        if (distance == 0 || distance > (size_t)(to - target) ||
            match > (size_t)(target_end - to)) {
            return -1;
        }
        copy_match(to, distance, match, (size_t)(target_end - to));
        to += match;
    }
    return -1; /* empty, or ends with a match */
}
