/* Shared by the binding files: Python.h, the Columns type, and the function that registers each
 * file. */
#ifndef EMSQRT_NATIVE_H
#define EMSQRT_NATIVE_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include "columns.h"

/* A batch of columns. `owner` and `held` keep the memory of the view alive. */
typedef struct {
    PyObject ob_base;
    em_columns view;
    em_column *columns; /* `view.columns`, to be freed */
    Py_buffer *held;
    Py_ssize_t held_count;
    PyObject *owner;
    uint32_t readers; /* number of loops that read it without holding the GIL */
} columns_object;

/* Return the view of a Columns object, or NULL with TypeError set. */
const em_columns *columns_view(PyObject *object);

/* Keep a Columns object and its buffers unchanged while a loop reads it; undo with
 * columns_release(). */
void columns_hold(PyObject *object);
void columns_release(PyObject *object);

/* Return a new Columns over `view`, which `owner` keeps valid; its column array is copied. */
PyObject *columns_over(const em_columns *view, PyObject *owner);

/* Read a column's kind from Python: its number, or (kind, bytes, least) of a narrow one; -1 with an
 * exception set. */
int parse_kind(PyObject *source, enum em_kind *kind, em_narrow *narrow);

/* Each binding file adds its types and functions to the module; 0, or -1 with an exception set. */
int arrow_join_register(PyObject *module);
int batch_register(PyObject *module);
int block_register(PyObject *module);
int codec_register(PyObject *module);
int columns_register(PyObject *module);
int copies_register(PyObject *module);
int csv_register(PyObject *module);
int csv_split_register(PyObject *module);
int csv_write_register(PyObject *module);
int finish_register(PyObject *module);
int floats_register(PyObject *module);
int join_register(PyObject *module);
int join_rows_register(PyObject *module);
int jsonl_register(PyObject *module);
int keys_register(PyObject *module);
int merge_join_register(PyObject *module);
int merge_register(PyObject *module);
int partition_register(PyObject *module);
int program_register(PyObject *module);
int states_register(PyObject *module);
int store_register(PyObject *module);
int table_register(PyObject *module);
int texts_register(PyObject *module);
int usage_register(PyObject *module);
int window_register(PyObject *module);

#endif
