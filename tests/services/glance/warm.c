/* A uWSGI that is warm: what LD_PRELOAD puts before it. Its interpreter starts first and runs WARM_SCRIPT, which imports
   what every host needs and then forks for each host. In a fork the script comes to its end and has left `words`: they
   become uWSGI's own words in place of as many as it was started with, and it goes on as if it began now. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <wchar.h>

typedef struct object Object;
extern void Py_Initialize(void);
extern void Py_SetProgramName(const wchar_t *);
extern int PyRun_SimpleFileExFlags(FILE *, const char *, int, void *);
extern Object *PyImport_AddModule(const char *), *PyObject_GetAttrString(Object *, const char *);
extern Object *PyList_GetItem(Object *, long);
extern long PyList_Size(Object *);
extern const char *PyUnicode_AsUTF8(Object *);

__attribute__((constructor)) static void warm(int count, char **words)
{
    static wchar_t python[4096];
    const char *script = getenv("WARM_SCRIPT"), *program = getenv("WARM_PYTHON");
    FILE *file = script && program ? fopen(script, "r") : NULL;
    if (!file)
        return;
    mbstowcs(python, program, sizeof python / sizeof *python - 1);
    Py_SetProgramName(python);
    Py_Initialize();
    if (PyRun_SimpleFileExFlags(file, script, 1, NULL))
        _Exit(1);
    Object *given = PyObject_GetAttrString(PyImport_AddModule("__main__"), "words");
    for (long number = 0; number < PyList_Size(given) && number < count; number++)
        words[number] = strdup(PyUnicode_AsUTF8(PyList_GetItem(given, number)));
}
