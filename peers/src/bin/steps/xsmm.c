/* libxsmm-dnn as a library of three functions: nets of layers with ReLU between them, softmax cross-entropy and plain
 * gradient descent, or the outputs alone. Built by `peers/run steps`, loaded by xsmm.rs.
 *
 * Products, biases, ReLU, masks, bias gradients and updates of weights are libxsmm-dnn's own. The softmax is written here,
 * for the compiler to vectorise: libxsmm-dnn's takes one exponential of a double at a time, and where a row of classes
 * is more than one block, its derivatives find the wrong class.
 */
#include <libxsmm_dnn.h>

#include <math.h>
#include <omp.h>
#include <stdlib.h>
#include <string.h>

typedef struct {
  libxsmm_dnn_fc_fwd_config forward;
  libxsmm_dnn_fc_bwd_config backward;
  libxsmm_dnn_opt_config update;
  /* Weights as [out/bk][in/bc][bc][bk]. */
  float *weight, *bias, *weight_gradient, *bias_gradient;
  unsigned char *mask;
} Layer;

typedef struct {
  int layers, batch, threads;
  int *units;
  /* Samples and units of a block: activations lie as [batch/bn][units/b][bn][b]. */
  int bn, *blocks;
  Layer *layer;
  /* What goes into each layer and out of the last one, and the derivatives of it. */
  float **activation, **delta;
  const int *labels;
  float rate;
  void *scratch;
} Net;

static void *aligned(size_t bytes) {
  void *memory = aligned_alloc(64, (bytes + 63) / 64 * 64);
  if (memory) memset(memory, 0, bytes);
  return memory;
}

static float *floats(size_t len) { return aligned(len * sizeof(float)); }

static int block_of(int units, int block) { return units % block == 0 ? block : units; }

/* A net with blocks of `bn` samples and `block` units (all of them where that does not divide them). `weights` as [out, in],
 * `labels` NULL for outputs alone; they must outlive the net. */
void *xsmm_new(int layers, const int *units, int batch, int bn, int block, int threads, float rate, const float **weights,
               const float **biases, const float *x, const int *labels) {
  Net *net = calloc(1, sizeof(Net));
  size_t scratch = 0;
  libxsmm_init();
  net->layers = layers;
  net->batch = batch;
  net->threads = threads;
  net->bn = bn;
  net->labels = labels;
  net->rate = rate;
  net->units = calloc(layers + 1, sizeof(int));
  net->blocks = calloc(layers + 1, sizeof(int));
  net->activation = calloc(layers + 1, sizeof(float *));
  net->delta = calloc(layers + 1, sizeof(float *));
  net->layer = calloc(layers, sizeof(Layer));
  for (int i = 0; i <= layers; ++i) {
    net->units[i] = units[i];
    net->blocks[i] = block_of(units[i], block);
    net->activation[i] = floats((size_t)batch * units[i]);
    net->delta[i] = floats((size_t)batch * units[i]);
  }
  for (int s = 0; s < batch; ++s) {
    const int b = net->blocks[0], per_row = units[0] / b;
    for (int i = 0; i < units[0]; ++i) {
      net->activation[0][(((size_t)(s / bn) * per_row + i / b) * bn + s % bn) * b + i % b] = x[(size_t)s * units[0] + i];
    }
  }
  for (int l = 0; l < layers; ++l) {
    Layer *layer = &net->layer[l];
    const int in = units[l], out = units[l + 1], bc = net->blocks[l], bk = net->blocks[l + 1];
    const libxsmm_datatype f32 = LIBXSMM_DATATYPE_F32;
    const libxsmm_dnn_fc_eltw_fuse fuse = l + 1 == layers ? LIBXSMM_DNN_FC_ELTW_FUSE_BIAS
                                          : labels        ? LIBXSMM_DNN_FC_ELTW_FUSE_BIAS_RELU_WITH_MASK
                                                          : LIBXSMM_DNN_FC_ELTW_FUSE_BIAS_RELU;
    layer->forward = setup_libxsmm_dnn_fc_fwd(batch, in, out, bn, bc, bk, threads, fuse, LIBXSMM_DNN_FC_LAYOUT_PACKED, f32,
                                              f32, f32);
    scratch = LIBXSMM_MAX(scratch, layer->forward.scratch_size);
    if (labels) {
      layer->backward = setup_libxsmm_dnn_fc_bwd(batch, in, out, bn, bc, bk, threads, fuse, f32, f32, f32);
      layer->update = setup_libxsmm_dnn_opt(in, out, bc, bk, threads, rate, f32, f32, f32);
      scratch = LIBXSMM_MAX(scratch, LIBXSMM_MAX(layer->backward.scratch_size, layer->update.scratch_size));
    }
    layer->weight = floats((size_t)in * out);
    layer->weight_gradient = floats((size_t)in * out);
    layer->bias = floats(out);
    layer->bias_gradient = floats(out);
    layer->mask = aligned((size_t)batch * out);
    memcpy(layer->bias, biases[l], out * sizeof(float));
    for (int o = 0; o < out; ++o) {
      for (int i = 0; i < in; ++i) {
        layer->weight[(((size_t)(o / bk) * (in / bc) + i / bc) * bc + i % bc) * bk + o % bk] = weights[l][(size_t)o * in + i];
      }
    }
  }
  net->scratch = aligned(scratch);
  return net;
}

/* The loss of a sample; its logits' derivatives go to `delta`. Logits of a sample lie in blocks, `stride` apart. */
static float softmax(const float *logits, float *delta, int blocks, int block, size_t stride, int label, float scale) {
  float largest = logits[0], sum = 0.0f;
  for (int i = 0; i < blocks; ++i)
    for (int j = 0; j < block; ++j) largest = fmaxf(largest, logits[i * stride + j]);
  for (int i = 0; i < blocks; ++i) {
    for (int j = 0; j < block; ++j) {
      const float e = expf(logits[i * stride + j] - largest);
      delta[i * stride + j] = e;
      sum += e;
    }
  }
  const float share = scale / sum;
  for (int i = 0; i < blocks; ++i)
    for (int j = 0; j < block; ++j) delta[i * stride + j] *= share;
  delta[label / block * stride + label % block] -= scale;
  return logf(sum) + largest - logits[label / block * stride + label % block];
}

/* The mean loss before the update of a step, or the first output where the net has no labels. */
float xsmm_call(void *handle) {
  Net *net = handle;
  const int layers = net->layers, block = net->blocks[layers], blocks = net->units[layers] / block;
  float loss = 0.0f;
#pragma omp parallel num_threads(net->threads) if (net->threads > 1) reduction(+ : loss)
  {
    const int tid = net->threads > 1 ? omp_get_thread_num() : 0;
    for (int l = 0; l < layers; ++l) {
      Layer *layer = &net->layer[l];
      libxsmm_dnn_fc_fwd_exec_f32(layer->forward, layer->weight, net->activation[l], net->activation[l + 1], layer->bias,
                                  layer->mask, 0, tid, net->scratch);
    }
    if (net->labels) {
#pragma omp for
      for (int s = 0; s < net->batch; ++s) {
        const size_t at = ((size_t)(s / net->bn) * blocks * net->bn + s % net->bn) * block;
        loss += softmax(net->activation[layers] + at, net->delta[layers] + at, blocks, block, (size_t)net->bn * block,
                        net->labels[s], 1.0f / net->batch);
      }
      for (int l = layers - 1; l >= 0; --l) {
        Layer *layer = &net->layer[l];
        libxsmm_dnn_fc_bwd_exec_f32(layer->backward, layer->weight, net->delta[l], net->delta[l + 1], layer->weight_gradient,
                                    net->activation[l], layer->bias_gradient, layer->mask,
                                    l == 0 ? LIBXSMM_DNN_FC_PASS_BWD_W : LIBXSMM_DNN_FC_PASS_BWD, 0, tid, net->scratch);
        libxsmm_dnn_opt_exec_f32(layer->update, layer->weight, layer->weight_gradient, 0, tid, net->scratch);
        if (tid == 0)
          for (int i = 0; i < net->units[l + 1]; ++i) layer->bias[i] -= net->rate * layer->bias_gradient[i];
      }
    }
  }
  return net->labels ? loss / net->batch : net->activation[layers][0];
}

void xsmm_drop(void *handle) {
  Net *net = handle;
  for (int l = 0; l < net->layers; ++l) {
    Layer *layer = &net->layer[l];
    destroy_libxsmm_dnn_fc_fwd(&layer->forward);
    if (net->labels) destroy_libxsmm_dnn_fc_bwd(&layer->backward);
    free(layer->weight), free(layer->bias), free(layer->weight_gradient), free(layer->bias_gradient), free(layer->mask);
  }
  for (int i = 0; i <= net->layers; ++i) free(net->activation[i]), free(net->delta[i]);
  free(net->units), free(net->blocks), free(net->activation), free(net->delta), free(net->layer), free(net->scratch);
  free(net);
}
