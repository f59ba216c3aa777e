/* The loop of csv_index.c, included once for each kind of chunk (csv_marks.h). */
EM_TARGET static void FIND_MARKS(em_csv_index *index, const uint8_t *data, size_t start,
                                 size_t size, em_dialect dialect) {
    const bool quoting = dialect.quote >= 0;
    const size_t stop = size - start < EM_INDEX_BYTES ? size : start + EM_INDEX_BYTES;
    uint64_t inside_before = 0, start_before = 1, return_before = 0;
    uint32_t *marks = index->marks;
    uint16_t *line_ends = index->line_ends;
    uint64_t stray = 0;
    for (size_t at = start; at < stop && stray == 0; at += 64) {
        const size_t left = stop - at;
        const EM_CHUNK chunk = left < 64 ? EM_LOAD_REST(data + at, left) : EM_LOAD(data + at);
        const uint64_t feeds = EM_EQUAL(&chunk, '\n'), returns = EM_EQUAL(&chunk, '\r');
        uint64_t found = EM_EQUAL(&chunk, dialect.delimiter) | feeds | returns;
        uint64_t live = em_live(left);
        const uint64_t quotes = quoting ? EM_EQUAL(&chunk, (uint8_t)dialect.quote) & live : 0;
        if ((quotes | inside_before) != 0) {
            /* A quote that enters quotes must be the first byte of a field or directly follow
             * another quote, which it doubles. Any other is stray: it is a literal of its field, so
             * the parity after it would be wrong and the marks end before it. */
            const uint64_t inside = EM_PARITY(quotes) ^ (0 - inside_before);
            stray = quotes & inside & ~((found | quotes) << 1 | start_before);
            live &= stray == 0 ? ~UINT64_C(0) : (stray & (0 - stray)) - 1;
            live &= ~inside;
            inside_before = inside >> 63;
        }
        start_before = (found | quotes) >> 63;
        /* Of a CRLF only the CR is a mark. */
        const uint64_t ended = returns & live;
        found &= live & ~(feeds & (ended << 1 | return_before));
        return_before = ended >> 63;
        const size_t before = (size_t)(marks - index->marks);
        /* Write at least one line end, and marks twelve at a time, even when there are fewer: a
         * mispredicted branch costs more. The index has spare entries for the excess. */
        uint64_t lines = found & (feeds | returns);
        do {
            const uint64_t below = (lines & (0 - lines)) - 1;
            *line_ends = (uint16_t)(before + EM_COUNT(found & below));
            line_ends += lines != 0;
            lines &= lines - 1;
        } while (lines != 0);
        const size_t count = EM_COUNT(found);
        for (size_t done = 0; done < count; done += EM_INDEX_SPARE) {
            for (int i = 0; i < EM_INDEX_SPARE; i++, found &= found - 1) {
                marks[done + (size_t)i] = (uint32_t)at + EM_FIRST(found);
            }
        }
        marks += count;
    }
    index->mark_count = (size_t)(marks - index->marks);
    index->line_count = (size_t)(line_ends - index->line_ends);
}
