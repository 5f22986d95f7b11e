/* Finds objects in an image with a model that Tessera trained, or one of the original's: C and libtessera.so, nothing else.
 *   predict best.safetensors image.ppm     (binary PPM, as `convert photo.jpg image.ppm` writes it)
 */
#include <stdio.h>
#include <stdlib.h>
#include <tessera.h>

static int fail(void) {
  fprintf(stderr, "predict: %s\n", tessera_last_error());
  return 1;
}

/* RGB, row by row; NULL where it is no such file. */
static uint8_t* read_ppm(const char* path, int* height, int* width) {
  FILE* file = fopen(path, "rb");
  uint8_t* pixels = NULL;
  if (file == NULL) return NULL;
  if (fscanf(file, "P6 %d %d 255", width, height) == 2 && fgetc(file) != EOF && *width > 0 && *height > 0 && *width <= 65500 &&
      *height <= 65500) {
    const size_t bytes = (size_t)*width * (size_t)*height * 3;
    pixels = malloc(bytes);
    if (pixels != NULL && fread(pixels, 1, bytes, file) != bytes) {
      free(pixels);
      pixels = NULL;
    }
  }
  fclose(file);
  return pixels;
}

int main(int argc, char** argv) {
  tessera_model* model = NULL;
  tessera_result* result = NULL;
  tessera_options options;
  int height, width;
  uint8_t *pixels, *mask;
  size_t i;

  if (argc != 3) {
    fprintf(stderr, "usage: predict MODEL IMAGE.ppm\n");
    return 2;
  }
  if (tessera_model_load(argv[1], &model) != TESSERA_OK) return fail();
  pixels = read_ppm(argv[2], &height, &width);
  if (pixels == NULL) {
    fprintf(stderr, "predict: %s is no binary PPM of 8 bits\n", argv[2]);
    return 1;
  }

  tessera_options_init(&options, sizeof options);
  options.max_det = 20;
  if (tessera_predict(model, pixels, height, width, (ptrdiff_t)width * 3, TESSERA_RGB, &options, &result) != TESSERA_OK)
    return fail();

  mask = malloc((size_t)width * (size_t)height);
  for (i = 0; mask != NULL && i < tessera_result_count(result); ++i) {
    tessera_object object;
    size_t p, area = 0;
    if (tessera_result_object(result, i, &object) != TESSERA_OK) return fail();
    if (tessera_result_mask(result, i, mask, (size_t)width) != TESSERA_OK) return fail();
    for (p = 0; p < (size_t)width * (size_t)height; ++p) area += mask[p];
    printf("%s %.4f box %.1f %.1f %.1f %.1f mask %zu\n", object.name, object.score, object.x1, object.y1, object.x2, object.y2,
           area);
  }
  free(mask);
  free(pixels);
  tessera_result_free(result);
  tessera_model_free(model);
  return 0;
}
