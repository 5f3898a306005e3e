/* Stands for NVIDIA's management library: two GPUs, of which the second tells next to nothing.

   PROCESSES says how many compute on a GPU, GENERATION (1 to 3) how new the driver is, FAILS which
   code the initialisation ends with. Signatures are those of the NVML API reference; what is asked
   for wrongly is refused. */

#include <stdio.h>

#ifndef PROCESSES
#define PROCESSES 2
#endif
#ifndef GENERATION
#define GENERATION 3
#endif
#ifndef FAILS
#define FAILS 0
#endif

enum { SUCCESS, UNINITIALIZED, INVALID_ARGUMENT, NOT_SUPPORTED, INSUFFICIENT_SIZE = 7 };

typedef int gpu;
typedef struct { unsigned long long total, free, used; } memory;
typedef struct { unsigned gpu, memory; } utilization;
typedef struct { unsigned pid; unsigned long long used; } old_process;
typedef struct { unsigned pid; unsigned long long used; unsigned gpu, compute; } process;

static gpu gpus[] = {0, 1};
static int is_ready;

/* A driver counts what begins between two calls, too. */
static unsigned running = PROCESSES;

#define READ(name, type, value)                        \
    int name(gpu *device, type *answer) {              \
        if (!is_ready) return UNINITIALIZED;           \
        if (*device == 1) return NOT_SUPPORTED;        \
        *answer = (value);                             \
        return SUCCESS;                                \
    }

READ(nvmlDeviceGetPowerUsage, unsigned, 412500)
READ(nvmlDeviceGetTotalEnergyConsumption, unsigned long long, 9876543210123ULL)
READ(nvmlDeviceGetCurrentClocksThrottleReasons, unsigned long long, 0x1 | 0x4 | 0x40)
READ(nvmlDeviceGetPersistenceMode, unsigned, 1)

const char *nvmlErrorString(int code) {
    return code == NOT_SUPPORTED ? "Not Supported" : code == 9 ? "Driver Not Loaded" : "Other";
}

int nvmlInit_v2(void) {
    is_ready = !FAILS;
    return FAILS;
}

int nvmlInitWithFlags(unsigned flags) { return flags ? INVALID_ARGUMENT : nvmlInit_v2(); }

int nvmlSystemGetDriverVersion(char *text, unsigned length) {
    snprintf(text, length, "580.95.05");
    return SUCCESS;
}

int nvmlDeviceGetCount_v2(unsigned *count) {
    *count = 2;
    return SUCCESS;
}

int nvmlDeviceGetHandleByIndex_v2(unsigned index, gpu **device) {
    if (index > 1) return INVALID_ARGUMENT;
    *device = &gpus[index];
    return SUCCESS;
}

int nvmlDeviceGetName(gpu *device, char *text, unsigned length) {
    snprintf(text, length, *device ? "NVIDIA T400" : "NVIDIA H200");
    return SUCCESS;
}

int nvmlDeviceGetUUID(gpu *device, char *text, unsigned length) {
    snprintf(text, length, "GPU-%da1b2c3d-0000-1111-2222-333344445555", *device);
    return SUCCESS;
}

int nvmlDeviceGetMemoryInfo(gpu *device, memory *answer) {
    *answer = (memory){150754820096ULL, 150754820096ULL - 5368709120ULL, 5368709120ULL};
    return SUCCESS;
}

int nvmlDeviceGetUtilizationRates(gpu *device, utilization *answer) {
    if (*device) return NOT_SUPPORTED;
    *answer = (utilization){25, 10};
    return SUCCESS;
}

int nvmlDeviceGetTemperature(gpu *device, int sensor, unsigned *answer) {
    if (sensor != 0) return INVALID_ARGUMENT;
    *answer = 41 + *device;
    return SUCCESS;
}

int nvmlDeviceGetClockInfo(gpu *device, int kind, unsigned *answer) {
    if (kind != 1) return INVALID_ARGUMENT;
    if (*device) return NOT_SUPPORTED;
    *answer = 1980;
    return SUCCESS;
}

int nvmlDeviceGetTotalEccErrors(gpu *device, int kind, int counter, unsigned long long *answer) {
    if (kind != 1 || counter != 0) return INVALID_ARGUMENT;
    if (*device) return NOT_SUPPORTED;
    *answer = 5000000000ULL;
    return SUCCESS;
}

#if GENERATION >= 2
int nvmlDeviceGetMigMode(gpu *device, unsigned *now, unsigned *pending) {
    if (*device) return NOT_SUPPORTED;
    *now = 1;
    *pending = 0;
    return SUCCESS;
}
#endif

#define LIST(name, type)                                          \
    int name(gpu *device, unsigned *count, type *found) {         \
        unsigned room = *count, i;                                \
        if (*device) return NOT_SUPPORTED;                        \
        *count = running;                                         \
        if (room < running) {                                     \
            running++;                                            \
            return INSUFFICIENT_SIZE;                             \
        }                                                         \
        for (i = 0; i < running; i++) {                           \
            found[i] = (type){.pid = 4194304 + i, .used = i};     \
        }                                                         \
        return SUCCESS;                                           \
    }

LIST(nvmlDeviceGetComputeRunningProcesses, old_process)
#if GENERATION >= 2
LIST(nvmlDeviceGetComputeRunningProcesses_v2, process)
#endif
#if GENERATION >= 3
LIST(nvmlDeviceGetComputeRunningProcesses_v3, process)
#endif
