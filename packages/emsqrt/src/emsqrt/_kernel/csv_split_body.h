/* The loop of csv_split.c, included once for each kind of chunk (csv_marks.h). */

/* Move on from `*end`, the start of a record, to the last record end before a stray quote. */
EM_TARGET static bool SKIP_UNTIL_STRAY(const uint8_t *data, size_t size, em_dialect dialect,
                                       size_t *end) {
    uint64_t inside_before = 0, start_before = 1;
    for (size_t at = *end; at < size; at += 64) {
        const size_t left = size - at;
        const EM_CHUNK chunk = left < 64 ? EM_LOAD_REST(data + at, left) : EM_LOAD(data + at);
        const uint64_t live = em_live(left);
        const uint64_t quotes = EM_EQUAL(&chunk, (uint8_t)dialect.quote) & live;
        const uint64_t feeds = EM_EQUAL(&chunk, '\n') & live;
        uint64_t returns = EM_EQUAL(&chunk, '\r') & live;
        const uint64_t marks =
            (EM_EQUAL(&chunk, dialect.delimiter) & live) | feeds | returns | quotes;
        const uint64_t inside = EM_PARITY(quotes) ^ (0 - inside_before);
        const uint64_t stray = quotes & inside & ~(marks << 1 | start_before);
        if (left <= 64) {
            returns &= ~(UINT64_C(1) << (left - 1));
        }
        const uint64_t before_stray = stray == 0 ? ~UINT64_C(0) : (stray & (0 - stray)) - 1;
        const uint64_t ends = (feeds | returns) & ~inside & before_stray;
        if (ends != 0) {
            *end = at + 64 - (size_t)__builtin_clzll(ends);
        }
        if (stray != 0) {
            return true;
        }
        inside_before = inside >> 63;
        start_before = marks >> 63;
    }
    return false;
}
