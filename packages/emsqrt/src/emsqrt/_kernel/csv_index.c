#include "csv_index.h"

#include "csv_marks.h"

#define FIND_MARKS find_marks
#include "csv_index_body.h"
#undef FIND_MARKS

#ifdef EM_WIDE
#include "csv_wide.h"
#define FIND_MARKS find_marks_wide
#include "csv_index_body.h"
#endif

void em_csv_find_marks(em_csv_index *index, const uint8_t *data, size_t start, size_t size,
                       em_dialect dialect) {
#ifdef EM_WIDE
    if (em_is_wide()) {
        find_marks_wide(index, data, start, size, dialect);
        return;
    }
#endif
    find_marks(index, data, start, size, dialect);
}
