/* Tessera inside other programs, in C: opens a model file, runs images of 8-bit pixels through it on the CPU and gives the
 * objects that it found, as `tessera predict` does: boxes, classes, scores, masks and outlines in pixels of the image.
 *
 * Errors. Functions that can fail return a tessera_status and leave their outputs alone when it is not TESSERA_OK;
 * tessera_last_error() then says what, where and what helps. No exception leaves the library, and it prints nothing but a line when
 * a CPU without AVX2 makes it slow.
 *
 * Threads. Every function may be called from any thread. Calls with one model wait for each other; those with different models run
 * side by side, the layers of one of them on all compute threads. A result is nobody else's: threads may read it at the same time.
 * What is freed must not be in use. After fork() only the process that forked may go on with the library.
 *
 * Memory. What a function gives out by pointer (names, outlines, bits) belongs to the result or model that it was asked of, and
 * ends with it.
 */
#ifndef TESSERA_H
#define TESSERA_H

#include <stddef.h>
#include <stdint.h>

#define TESSERA_API __attribute__((visibility("default")))

#ifdef __cplusplus
extern "C" {
#endif

/* The values are the exit codes of the program. */
typedef enum tessera_status {
  TESSERA_OK = 0,
  TESSERA_ERROR_BUG = 1,    /* ours: please report */
  TESSERA_ERROR_USAGE = 2,  /* an argument out of range */
  TESSERA_ERROR_DATA = 3,   /* the model file */
  TESSERA_ERROR_MEMORY = 4, /* not enough of it */
  TESSERA_ERROR_IO = 6      /* reading failed */
} tessera_status;

typedef enum tessera_format { TESSERA_RGB = 0, TESSERA_BGR = 1 } tessera_format; /* order of the three bytes of a pixel */

typedef struct tessera_model tessera_model;
typedef struct tessera_result tessera_result;

TESSERA_API const char* tessera_version(void); /* "0.1.0" */

/* Of the last call of this thread that failed: "file: what (remedy)"; "" before the first. Good until the next one fails. */
TESSERA_API const char* tessera_last_error(void);

/* Compute threads of the process, the calling one included; 1 to 1024. Else TESSERA_THREADS of the environment, or the usable
 * cores. */
TESSERA_API tessera_status tessera_set_threads(int32_t threads);

/* A .safetensors of this program, a .pt of the original (nothing in it is executed), or an .onnx of either. */
TESSERA_API tessera_status tessera_model_load(const char* path, tessera_model** model);
TESSERA_API void tessera_model_free(tessera_model* model); /* NULL: nothing */
TESSERA_API int32_t tessera_model_classes(const tessera_model* model);
TESSERA_API const char* tessera_model_class_name(const tessera_model* model, int32_t class_id); /* NULL: there is no such class */

/* The arguments of `predict`: tessera_options_init(&options, sizeof options) sets the defaults, then change what you like. */
typedef struct tessera_options {
  size_t size;          /* of the struct as the caller knows it: later versions of the library have more fields */
  float conf;           /* 0.25; scores must be greater */
  double iou;           /* 0.7; overlaps must be greater to suppress */
  int32_t max_det;      /* 300; objects of an image */
  int32_t imgsz;        /* 0: of an .onnx file its own, else 640. The longer side that images are brought to, a multiple of 32 */
  int32_t agnostic_nms; /* 0; not 0: classes suppress each other */
  int32_t retina_masks; /* 0; not 0: masks are computed at the size of the image instead of enlarged */
  const int32_t* classes; /* NULL: all; else only these `class_count` */
  size_t class_count;
} tessera_options;

TESSERA_API void tessera_options_init(tessera_options* options, size_t size);

/* height x width pixels of three bytes, `stride` bytes from row to row (negative: the last row comes first in memory, and `pixels`
 * points to the top row all the same). They are copied. options NULL: the defaults. */
TESSERA_API tessera_status tessera_predict(tessera_model* model, const uint8_t* pixels, int32_t height, int32_t width,
                                           ptrdiff_t stride, tessera_format format, const tessera_options* options,
                                           tessera_result** result);
TESSERA_API void tessera_result_free(tessera_result* result); /* NULL: nothing */
TESSERA_API size_t tessera_result_count(const tessera_result* result);

typedef struct tessera_object {
  int32_t class_id;
  float score;
  float x1, y1, x2, y2; /* the box, within the image */
  const char* name;     /* of the class, UTF-8 as in the file */
  size_t outlines;      /* parts of the mask */
} tessera_object;

/* Object `index`, in falling score. */
TESSERA_API tessera_status tessera_result_object(const tessera_result* result, size_t index, tessera_object* object);

/* Its mask in the image's size: height rows of width bytes, 1 where the object is and else 0, `stride` bytes from row to row. */
TESSERA_API tessera_status tessera_result_mask(const tessera_result* result, size_t index, uint8_t* mask, size_t stride);

/* The same as it is kept: bits of the rectangle that can hold set ones. Pixel (x, y) with x0 <= x < x1 and y0 <= y < y1 is bit
 * (x - x0) % 32 of words[(y - y0) * row_words + (x - x0) / 32]; every other pixel of the image is 0. */
typedef struct tessera_bits {
  int32_t x0, y0, x1, y1;
  size_t row_words;
  const uint32_t* words;
} tessera_bits;
TESSERA_API tessera_status tessera_result_mask_bits(const tessera_result* result, size_t index, tessera_bits* bits);

/* Outline `part` of its mask: `points` corners x0 y0 x1 y1 ... in pixels of the image, the last joined to the first. Holes have
 * none. */
TESSERA_API tessera_status tessera_result_outline(const tessera_result* result, size_t index, size_t part, const float** xy,
                                                  size_t* points);

#ifdef __cplusplus
}
#endif

#endif
