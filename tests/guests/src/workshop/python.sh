#!/bin/sh
# Modules of CPython's own test suite.
for module in test_int test_float test_math test_complex test_long test_struct test_array test_list \
    test_dict test_set test_sort test_re test_json test_zlib test_hashlib test_decimal test_unicode \
    test_generators test_thread test_mmap test_memoryview; do
    if python3 -m test -q "$module" >log 2>&1; then echo "$module passed"; else
        echo "$module failed"
        tail -n 5 log >&2
    fi
done
