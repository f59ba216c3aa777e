#include "csv_fault.h"

bool em_reading_begin(em_reading *reading, em_batch *batch, size_t start) {
    reading->fault.reason = EM_SOUND;
    reading->skipped_count = 0;
    if (em_batch_begin(batch)) {
        return true;
    }
    batch->row_count = batch->row_capacity = 0;
    reading->fault = (em_fault){.reason = EM_ROOM, .record = {(uint32_t)start, 0}};
    return false;
}

enum em_outcome em_reading_invalid(em_reading *reading, em_batch *batch, size_t column,
                                   em_fault fault) {
    if (reading->policy == EM_NULL) {
        em_batch_null(batch, column);
        reading->nulled_now++;
        return EM_ACCEPTED;
    }
    reading->fault = fault;
    return EM_BAD;
}

bool em_reading_commit(em_reading *reading, em_batch *batch, em_span record,
                       enum em_outcome outcome) {
    if (outcome == EM_ACCEPTED) {
        em_batch_commit(batch, record);
        reading->nulled += reading->nulled_now;
        reading->records++;
        return true;
    }
    em_batch_undo(batch);
    if (outcome == EM_FULL || reading->policy != EM_SKIP || reading->fault.reason == EM_ROOM) {
        return false;
    }
    const bool listed = reading->skipped_count < EM_SKIPPED_MAX;
    if (listed) {
        reading->skipped_now[reading->skipped_count++] = reading->fault;
        reading->skipped++;
        reading->records++;
    }
    reading->fault.reason = EM_SOUND;
    return listed;
}

void em_reading_end(em_reading *reading, const em_batch *batch) {
    if (batch->row_count > 0) {
        reading->fault.reason = EM_SOUND;
    }
}
