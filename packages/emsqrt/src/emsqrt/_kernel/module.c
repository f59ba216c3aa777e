/* emsqrt._kernel._native: loops over bytes, in memory that Python hands in. */
#include "native.h"

#ifndef NATIVE_CFLAGS
#define NATIVE_CFLAGS ""
#endif

/* The build looks for this text to know with which extra flags the extension was made. */
__attribute__((used)) static const char BUILD[] = "NATIVE_CFLAGS=" NATIVE_CFLAGS;

static int (*const registers[])(PyObject *) = {
    arrow_join_register, batch_register, block_register,     codec_register,     columns_register, copies_register,
    csv_register,   csv_split_register, csv_write_register, finish_register,  floats_register,
    join_register,  join_rows_register, jsonl_register,     keys_register,    merge_join_register,
    merge_register, partition_register, program_register,   states_register,  store_register,
    table_register, texts_register,     usage_register,     window_register,
};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT,
    .m_name = "emsqrt._kernel._native",
    .m_doc = "The engine's loops over bytes. No function allocates beyond the memory that its "
             "caller passes.",
    .m_size = -1,
};

__attribute__((visibility("default"))) PyMODINIT_FUNC PyInit__native(void) {
    PyObject *module = PyModule_Create(&definition);
    for (size_t i = 0; module != NULL && i < sizeof registers / sizeof *registers; i++) {
        if (registers[i](module) < 0) {
            Py_DECREF(module);
            module = NULL;
        }
    }
    return module;
}
