#include "csv_index.h"

#include "csv_marks.h"

static inline size_t count_bits(uint64_t bits) {
#ifdef __POPCNT__
    return (size_t)__builtin_popcountll(bits);
#else
    bits -= bits >> 1 & UINT64_C(0x5555555555555555);
    bits = (bits & UINT64_C(0x3333333333333333)) + (bits >> 2 & UINT64_C(0x3333333333333333));
    bits = (bits + (bits >> 4)) & UINT64_C(0x0f0f0f0f0f0f0f0f);
    return (bits * UINT64_C(0x0101010101010101)) >> 56;
#endif
}

void em_csv_find_marks(em_csv_index *index, const uint8_t *data, size_t start, size_t size,
                       em_dialect dialect) {
    const bool quoting = dialect.quote >= 0;
    const size_t stop = size - start < EM_INDEX_BYTES ? size : start + EM_INDEX_BYTES;
    uint64_t inside_before = 0, start_before = 1, return_before = 0;
    uint32_t *marks = index->marks;
    uint16_t *line_ends = index->line_ends;
    uint64_t stray = 0;
    for (size_t at = start; at < stop && stray == 0; at += 64) {
        const size_t left = stop - at;
        const em_chunk chunk = left < 64 ? em_load_rest(data + at, left) : em_load_chunk(data + at);
        const uint64_t feeds = em_equal(&chunk, '\n'), returns = em_equal(&chunk, '\r');
        uint64_t found = em_equal(&chunk, dialect.delimiter) | feeds | returns;
        uint64_t live = em_live(left);
        const uint64_t quotes = quoting ? em_equal(&chunk, (uint8_t)dialect.quote) & live : 0;
        if ((quotes | inside_before) != 0) {
            const uint64_t inside = em_parity(quotes) ^ (0 - inside_before);
            stray = quotes & inside & ~((found | quotes) << 1 | start_before);
            live &= stray == 0 ? ~UINT64_C(0) : (stray & (0 - stray)) - 1;
            live &= ~inside;
            inside_before = inside >> 63;
        }
        start_before = (found | quotes) >> 63;
        const uint64_t ended = returns & live;
        found &= live & ~(feeds & (ended << 1 | return_before));
        return_before = ended >> 63;
        const size_t before = (size_t)(marks - index->marks);
        for (uint64_t lines = found & (feeds | returns); lines != 0; lines &= lines - 1) {
            const uint64_t below = (lines & (0 - lines)) - 1;
            *line_ends++ = (uint16_t)(before + count_bits(found & below));
        }
        for (; found != 0; found &= found - 1) {
            *marks++ = (uint32_t)at + (uint32_t)__builtin_ctzll(found);
        }
    }
    index->mark_count = (size_t)(marks - index->marks);
    index->line_count = (size_t)(line_ends - index->line_ends);
}
