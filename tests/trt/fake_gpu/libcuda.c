/* A libcuda.so.1 in the memory of the host: as much of the CUDA driver API as cuda-core and mribatch use.
 *
 * It is asynchronous, as the real one is. Each stream is a thread that does its work in order and later. A copy reads its
 * source when its turn comes, not when it is asked for. Memory is garbage until something is written to it, counts
 * against the size of the GPU, and is checked: work that touches memory which is not there fails with
 * CUDA_ERROR_ILLEGAL_ADDRESS, and from then on everything in the process does, as on a GPU.
 *
 * FAKE_GPUS names the GPUs, "NVIDIA L4:8.9:24,NVIDIA T4:7.5:16": name, compute capability, memory (GiB, or bytes with a B
 * behind them). CUDA_VISIBLE_DEVICES chooses among them by number. A kernel is a function of the host
 * (fake_launch), which runs on the stream's thread.
 */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef int Result;
typedef int Device;
typedef uint64_t Address;
typedef void *Handle;

enum {
    SUCCESS = 0,
    INVALID_VALUE = 1,
    OUT_OF_MEMORY = 2,
    NOT_INITIALIZED = 3,
    NO_DEVICE = 100,
    INVALID_DEVICE = 101,
    INVALID_CONTEXT = 201,
    NOT_FOUND = 500,
    NOT_READY = 600,
    ILLEGAL_ADDRESS = 700,
    NOT_SUPPORTED = 801,
};

enum { MAX_GPUS = 8, NAME = 128, ALIGNMENT = 512, PAGE = 4096, DELAY_US = 50, GARBAGE = 0xFF };
enum { COMPUTE_MAJOR = 75, COMPUTE_MINOR = 76, MEMORY_POOLS = 115, UNIFIED_ADDRESSING = 41, MULTIPROCESSORS = 16 };
enum { EVENT_BLOCKING_SYNC = 1 };

struct gpu {
    char name[NAME];
    int major, minor, number;
    size_t memory, used;
};

/* Memory of a GPU (gpu) or page-locked memory of the host (no gpu). */
struct block {
    struct block *next;
    char *address;
    size_t size;
    struct gpu *gpu;
};

struct work {
    struct work *next;
    Result (*run)(void *argument);
    void *argument;
};

struct stream {
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    struct work *first, *last;
    long put, done;
    int ends;
};

struct event {
    unsigned flags;
    struct stream *stream;
    long mark;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct gpu gpus[MAX_GPUS];
static int number_of_gpus, initialized;
static struct block *blocks;
static struct stream *default_streams[MAX_GPUS];
static Result broken; /* sticky: set once work has failed */
static long spinning_events, sleeping_events;
static __thread struct gpu *current;

/* --- which GPUs there are --- */

static void read_gpu(char *text, int number, struct gpu *gpu) {
    char *capability = strchr(text, ':');
    char *memory = capability ? strchr(capability + 1, ':') : NULL;
    if (!memory) {
        fprintf(stderr, "FAKE_GPUS: '%s' is not NAME:COMPUTE:MEMORY\n", text);
        abort();
    }
    *capability = *memory = '\0';
    snprintf(gpu->name, NAME, "%s", text);
    sscanf(capability + 1, "%d.%d", &gpu->major, &gpu->minor);
    char *unit;
    gpu->memory = strtoull(memory + 1, &unit, 10);
    if (*unit != 'B') gpu->memory <<= 30;
    gpu->number = number;
}

static void find_gpus(void) {
    struct gpu all[MAX_GPUS];
    int count = 0;
    char *list = strdup(getenv("FAKE_GPUS") ? getenv("FAKE_GPUS") : ""), *rest = list, *one;
    while (count < MAX_GPUS && (one = strsep(&rest, ",")) != NULL)
        if (*one) {
            memset(&all[count], 0, sizeof all[count]);
            read_gpu(one, count, &all[count]);
            count++;
        }
    free(list);
    const char *visible = getenv("CUDA_VISIBLE_DEVICES");
    number_of_gpus = 0;
    if (!visible) {
        memcpy(gpus, all, sizeof gpus);
        number_of_gpus = count;
        return;
    }
    list = strdup(visible), rest = list;
    while ((one = strsep(&rest, ",")) != NULL) {
        char *end;
        long number = strtol(one, &end, 10);
        if (end == one || number < 0 || number >= count) break; /* as CUDA: what follows an invalid number is hidden */
        gpus[number_of_gpus++] = all[number];
    }
    free(list);
}

Result cuInit(unsigned flags) {
    (void)flags;
    pthread_mutex_lock(&lock);
    if (!initialized) find_gpus();
    initialized = 1;
    Result result = number_of_gpus ? SUCCESS : NO_DEVICE;
    pthread_mutex_unlock(&lock);
    return result;
}

Result cuDriverGetVersion(int *version) {
    *version = 13050;
    return SUCCESS;
}

Result cuDeviceGetCount(int *count) {
    if (!initialized) return NOT_INITIALIZED;
    *count = number_of_gpus;
    return SUCCESS;
}

Result cuDeviceGet(Device *device, int ordinal) {
    if (!initialized) return NOT_INITIALIZED;
    if (ordinal < 0 || ordinal >= number_of_gpus) return INVALID_DEVICE;
    *device = ordinal;
    return SUCCESS;
}

Result cuDeviceGetName(char *name, int length, Device device) {
    snprintf(name, (size_t)length, "%s", gpus[device].name);
    return SUCCESS;
}

Result cuDeviceGetUuid_v2(unsigned char *uuid, Device device) {
    memset(uuid, 7, 16);
    uuid[15] = (unsigned char)gpus[device].number;
    return SUCCESS;
}

Result cuDeviceGetAttribute(int *value, int attribute, Device device) {
    switch (attribute) {
    case COMPUTE_MAJOR: *value = gpus[device].major; break;
    case COMPUTE_MINOR: *value = gpus[device].minor; break;
    case MEMORY_POOLS: case UNIFIED_ADDRESSING: *value = 1; break;
    case MULTIPROCESSORS: *value = 58; break;
    default: *value = 0;
    }
    return SUCCESS;
}

Result cuDeviceTotalMem_v2(size_t *bytes, Device device) {
    *bytes = gpus[device].memory;
    return SUCCESS;
}

Result cuMemGetInfo_v2(size_t *unused, size_t *total) {
    if (!current) return INVALID_CONTEXT;
    *total = current->memory;
    *unused = current->memory - current->used;
    return SUCCESS;
}

/* --- contexts: each GPU has its primary one, which is current in a thread or not --- */

Result cuDevicePrimaryCtxRetain(Handle *context, Device device) {
    *context = &gpus[device];
    return broken;
}

Result cuDevicePrimaryCtxRelease_v2(Device device) {
    (void)device;
    return SUCCESS;
}

Result cuCtxSetCurrent(Handle context) {
    current = context;
    return SUCCESS;
}

Result cuCtxGetCurrent(Handle *context) {
    *context = current;
    return SUCCESS;
}

Result cuCtxPushCurrent_v2(Handle context) { return cuCtxSetCurrent(context); }

Result cuCtxPopCurrent_v2(Handle *context) {
    *context = current;
    current = NULL;
    return SUCCESS;
}

Result cuCtxGetDevice(Device *device) {
    if (!current) return INVALID_CONTEXT;
    *device = (Device)(current - gpus);
    return SUCCESS;
}

Result cuCtxGetStreamPriorityRange(int *least, int *greatest) {
    *least = 0, *greatest = -5;
    return current ? SUCCESS : INVALID_CONTEXT;
}

/* --- memory --- */

static Result new_block(char **address, size_t size, size_t alignment, struct gpu *gpu) {
    struct block *block = calloc(1, sizeof *block);
    void *memory = NULL;
    pthread_mutex_lock(&lock);
    Result result = broken;
    if (result == SUCCESS && gpu && size > gpu->memory - gpu->used) result = OUT_OF_MEMORY;
    if (result == SUCCESS && posix_memalign(&memory, alignment, size ? size : 1)) result = OUT_OF_MEMORY;
    if (result == SUCCESS) {
        memset(memory, GARBAGE, size);
        *block = (struct block){blocks, memory, size, gpu};
        blocks = block;
        if (gpu) gpu->used += size;
        *address = memory;
    } else {
        free(block);
    }
    pthread_mutex_unlock(&lock);
    return result;
}

static Result forget_block(char *address) {
    Result result = INVALID_VALUE;
    pthread_mutex_lock(&lock);
    for (struct block **at = &blocks; *at; at = &(*at)->next)
        if ((*at)->address == address) {
            struct block *block = *at;
            *at = block->next;
            if (block->gpu) block->gpu->used -= block->size;
            memset(block->address, GARBAGE, block->size);
            free(block->address);
            free(block);
            result = SUCCESS;
            break;
        }
    pthread_mutex_unlock(&lock);
    return result;
}

/* Whether these bytes are within memory that is there. */
static int is_there(const char *address, size_t size) {
    int found = 0;
    pthread_mutex_lock(&lock);
    for (struct block *block = blocks; block && !found; block = block->next)
        found = address >= block->address && address + size <= block->address + block->size;
    pthread_mutex_unlock(&lock);
    return found;
}

Result cuMemAlloc_v2(Address *address, size_t size) {
    if (!current) return INVALID_CONTEXT;
    return new_block((char **)address, size, ALIGNMENT, current);
}

Result cuMemAllocAsync(Address *address, size_t size, Handle stream) {
    (void)stream;
    return cuMemAlloc_v2(address, size);
}

Result cuMemAllocFromPoolAsync(Address *address, size_t size, Handle pool, Handle stream) {
    (void)stream;
    return new_block((char **)address, size, ALIGNMENT, pool);
}

Result cuMemFree_v2(Address address) { return forget_block((char *)(uintptr_t)address); }

Result cuMemAllocHost_v2(void **address, size_t size) {
    if (!current) return INVALID_CONTEXT;
    return new_block((char **)address, size, PAGE, NULL);
}

Result cuMemFreeHost(void *address) { return forget_block(address); }

Result cuDeviceGetMemPool(Handle *pool, Device device) {
    *pool = &gpus[device];
    return SUCCESS;
}

Result cuDeviceGetDefaultMemPool(Handle *pool, Device device) { return cuDeviceGetMemPool(pool, device); }

Result cuMemPoolGetAttribute(Handle pool, int attribute, void *value) {
    (void)pool, (void)attribute;
    *(uint64_t *)value = 0;
    return SUCCESS;
}

Result cuMemPoolSetAttribute(Handle pool, int attribute, void *value) {
    (void)pool, (void)attribute, (void)value;
    return SUCCESS;
}

Result cuMemPoolSetAccess(Handle pool, const void *access, size_t count) {
    (void)pool, (void)access, (void)count;
    return SUCCESS;
}

Result cuMemPoolGetAccess(int *flags, Handle pool, const void *location) {
    (void)pool, (void)location;
    *flags = 3;
    return SUCCESS;
}

Result cuPointerGetAttributes(unsigned count, int *attributes, void **values, Address address) {
    (void)attributes, (void)address;
    for (unsigned i = 0; i < count; i++) *(int *)values[i] = 0;
    return SUCCESS;
}

/* --- streams: work is done in order, later, on a thread --- */

static void *serve(void *argument) {
    struct stream *stream = argument;
    for (;;) {
        pthread_mutex_lock(&stream->lock);
        while (!stream->first && !stream->ends) pthread_cond_wait(&stream->changed, &stream->lock);
        struct work *work = stream->first;
        pthread_mutex_unlock(&stream->lock);
        if (!work) return NULL;
        usleep(DELAY_US);
        if (broken == SUCCESS) {
            Result result = work->run(work->argument);
            if (result != SUCCESS) broken = result;
        }
        free(work->argument);
        pthread_mutex_lock(&stream->lock);
        stream->first = work->next;
        if (!stream->first) stream->last = NULL;
        stream->done++;
        pthread_cond_broadcast(&stream->changed);
        pthread_mutex_unlock(&stream->lock);
        free(work);
    }
}

static struct stream *new_stream(void) {
    struct stream *stream = calloc(1, sizeof *stream);
    pthread_mutex_init(&stream->lock, NULL);
    pthread_cond_init(&stream->changed, NULL);
    pthread_create(&stream->thread, NULL, serve, stream);
    return stream;
}

/* A handle's stream; NULL, 1 and 2 are the default streams, which are one here. */
static struct stream *at(Handle handle) {
    if ((uintptr_t)handle > 2) return handle;
    int number = current ? (int)(current - gpus) : 0;
    pthread_mutex_lock(&lock);
    if (!default_streams[number]) default_streams[number] = new_stream();
    pthread_mutex_unlock(&lock);
    return default_streams[number];
}

static Result put(struct stream *stream, Result (*run)(void *), void *argument) {
    struct work *work = calloc(1, sizeof *work);
    *work = (struct work){NULL, run, argument};
    pthread_mutex_lock(&stream->lock);
    if (stream->last) stream->last->next = work;
    else stream->first = work;
    stream->last = work;
    stream->put++;
    pthread_cond_broadcast(&stream->changed);
    pthread_mutex_unlock(&stream->lock);
    return broken;
}

static Result wait_until(struct stream *stream, long mark) {
    pthread_mutex_lock(&stream->lock);
    while (stream->done < mark) pthread_cond_wait(&stream->changed, &stream->lock);
    pthread_mutex_unlock(&stream->lock);
    return broken;
}

Result cuStreamCreateWithPriority(Handle *stream, unsigned flags, int priority) {
    (void)flags, (void)priority;
    if (!current) return INVALID_CONTEXT;
    if (broken) return broken;
    *stream = new_stream();
    return SUCCESS;
}

Result cuStreamCreate(Handle *stream, unsigned flags) { return cuStreamCreateWithPriority(stream, flags, 0); }

Result cuStreamDestroy_v2(Handle handle) {
    struct stream *stream = handle;
    pthread_mutex_lock(&stream->lock);
    stream->ends = 1;
    pthread_cond_broadcast(&stream->changed);
    pthread_mutex_unlock(&stream->lock);
    pthread_join(stream->thread, NULL); /* what was put there is done first */
    free(stream);
    return broken;
}

Result cuStreamSynchronize(Handle handle) {
    struct stream *stream = at(handle);
    return wait_until(stream, stream->put);
}

Result cuCtxSynchronize(void) { return broken; }

Result cuStreamGetFlags(Handle stream, unsigned *flags) {
    (void)stream;
    *flags = 1;
    return SUCCESS;
}

Result cuStreamGetPriority(Handle stream, int *priority) {
    (void)stream;
    *priority = 0;
    return SUCCESS;
}

Result cuStreamGetCtx(Handle stream, Handle *context) {
    (void)stream;
    *context = current ? current : gpus;
    return SUCCESS;
}

Result cuStreamGetDevice(Handle stream, Device *device) {
    (void)stream;
    return cuCtxGetDevice(device);
}

Result cuStreamIsCapturing(Handle stream, int *status) {
    (void)stream;
    *status = 0;
    return SUCCESS;
}

static Result free_later(void *argument) { return forget_block(*(char **)argument); }

Result cuMemFreeAsync(Address address, Handle stream) {
    char **argument = malloc(sizeof *argument);
    *argument = (char *)(uintptr_t)address;
    return put(at(stream), free_later, argument);
}

struct copy {
    char *target;
    const char *source;
    size_t size;
};

static Result copy_now(void *argument) {
    struct copy *copy = argument;
    if (!is_there(copy->target, copy->size) || !is_there(copy->source, copy->size)) return ILLEGAL_ADDRESS;
    memcpy(copy->target, copy->source, copy->size);
    return SUCCESS;
}

Result cuMemcpyAsync(Address target, Address source, size_t size, Handle stream) {
    struct copy *copy = malloc(sizeof *copy);
    *copy = (struct copy){(char *)(uintptr_t)target, (const char *)(uintptr_t)source, size};
    return put(at(stream), copy_now, copy);
}

struct launch {
    int (*kernel)(const void *input, void *output);
    const void *input;
    void *output;
    size_t input_size, output_size;
};

static Result launch_now(void *argument) {
    struct launch *launch = argument;
    if (!is_there(launch->input, launch->input_size) || !is_there(launch->output, launch->output_size))
        return ILLEGAL_ADDRESS;
    return launch->kernel(launch->input, launch->output);
}

/* Put a "kernel" on a stream: a function of the host that reads one array and writes another, and gives a CUresult. */
Result fake_launch(Handle stream, int (*kernel)(const void *, void *), const void *input, size_t input_size,
                   void *output, size_t output_size) {
    struct launch *launch = malloc(sizeof *launch);
    *launch = (struct launch){kernel, input, output, input_size, output_size};
    return put(at(stream), launch_now, launch);
}

/* Bytes of the current GPU that are in use. */
size_t fake_used(void) { return current ? current->used : 0; }

/* How many times a thread has waited for an event that spins, or for one that sleeps. */
long fake_waits(int sleeping) { return sleeping ? sleeping_events : spinning_events; }

/* --- events --- */

Result cuEventCreate(Handle *event, unsigned flags) {
    if (!current) return INVALID_CONTEXT;
    struct event *new = calloc(1, sizeof *new);
    new->flags = flags;
    *event = new;
    return broken;
}

Result cuEventDestroy_v2(Handle event) {
    free(event);
    return SUCCESS;
}

Result cuEventRecord(Handle handle, Handle stream) {
    struct event *event = handle;
    event->stream = at(stream);
    event->mark = event->stream->put;
    return broken;
}

Result cuEventSynchronize(Handle handle) {
    struct event *event = handle;
    *(event->flags & EVENT_BLOCKING_SYNC ? &sleeping_events : &spinning_events) += 1;
    return event->stream ? wait_until(event->stream, event->mark) : broken;
}

Result cuEventQuery(Handle handle) {
    struct event *event = handle;
    if (broken) return broken;
    return event->stream && event->stream->done < event->mark ? NOT_READY : SUCCESS;
}

static Result wait_for_event(void *argument) {
    struct event *event = argument;
    return wait_until(event->stream, event->mark);
}

Result cuStreamWaitEvent(Handle stream, Handle handle, unsigned flags) {
    (void)flags;
    struct event *event = handle;
    if (!event->stream || event->stream == at(stream)) return broken;
    struct event *copy = malloc(sizeof *copy);
    *copy = *event;
    return put(at(stream), wait_for_event, copy);
}

/* --- errors, and how the bindings find functions --- */

static const char *name_of(Result result) {
    switch (result) {
    case SUCCESS: return "CUDA_SUCCESS";
    case OUT_OF_MEMORY: return "CUDA_ERROR_OUT_OF_MEMORY";
    case NO_DEVICE: return "CUDA_ERROR_NO_DEVICE";
    case INVALID_DEVICE: return "CUDA_ERROR_INVALID_DEVICE";
    case INVALID_CONTEXT: return "CUDA_ERROR_INVALID_CONTEXT";
    case ILLEGAL_ADDRESS: return "CUDA_ERROR_ILLEGAL_ADDRESS";
    default: return "CUDA_ERROR_UNKNOWN";
    }
}

Result cuGetErrorName(Result result, const char **name) {
    *name = name_of(result);
    return SUCCESS;
}

Result cuGetErrorString(Result result, const char **text) {
    *text = name_of(result);
    return SUCCESS;
}

static Result not_supported(void) { return NOT_SUPPORTED; }

Result cuGetProcAddress_v2(const char *symbol, void **function, int version, uint64_t flags, int *status) {
    (void)version, (void)flags;
    char newer[256];
    Dl_info own;
    dladdr((void *)cuInit, &own);
    void *library = dlopen(own.dli_fname, RTLD_NOW | RTLD_NOLOAD);
    snprintf(newer, sizeof newer, "%s_v2", symbol);
    *function = dlsym(library, newer);
    if (!*function) *function = dlsym(library, symbol);
    if (!*function) *function = (void *)not_supported;
    dlclose(library);
    if (status) *status = 0;
    return SUCCESS;
}

Result cuGetProcAddress(const char *symbol, void **function, int version, uint64_t flags) {
    return cuGetProcAddress_v2(symbol, function, version, flags, NULL);
}
