#!/usr/bin/env python3
"""Shows that the checks of the emulated GPU catch mistakes: makes some in copies of kernels' sources and expects a failure of each.

mutations.py BUILD_DIR [FILE ...] [--only REGEX] [--list] [--every N]

BUILD_DIR holds a built test_cuda_host_checked (nvcc is not needed). FILE: part of a path below cuda/ ("norm.cu"); default: all.
A file is built once, with all of its mistakes in it behind a switch that TESSERA_MISTAKE sets, and run once for each on the cases
that CHECKS names for it, or all: seconds for each that is caught. --only takes those whose
description matches REGEX ("dropped"), --every N each Nth, --list only prints them.

The mistakes: every barrier, fence, wait, open, close and publish dropped, and what orders work of two streams and their memory; waits
for one group of copies less; every guard off by one; every loop one too long, or one too short where it goes over an array of the thread, whose end no check can watch; every index of a
shared variable off by one; another stage of a pipeline, and no turn to the next.

Ends with 1 when a mistake survived that is not in EQUIVALENT, or when an entry there names no mistake, or one that is caught.
"""

import argparse
import collections
import json
import os
import pathlib
import re
import resource
import shlex
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[2]

# Changes that are no mistakes, as --list prints them, and why nobody can tell the difference.
EQUIVALENT = {
    "chunks.cuh join_chunks_kernel: for (int row = t / kJoinColumns; row < chunks.count; row += kTogether * lanes) { [< to <=]":
        "the round more adds nothing",
    "conv_patch.cu conv_patch_kernel: if (piece >= kCols || channel >= x.c) continue; [>= to >]":
        "the piece more has a place in the panel and is not multiplied",
    "conv_patch.cu conv_patch_weight_kernel: if (piece < kCols) { [< to <=]":
        "the piece more has a place in the patch and is not multiplied",
    "conv_patch.cu conv_patch_weight_kernel: for (int line = first_line; line < Patch<kWeightSide>::kLines; line += kLinesAtOnce) { "
    "[< to <=]": "the line more lies in the padding of the patch",
    "conv_patch.cu conv_patch_weight_kernel: for (int kx = 0; kx < 3; ++kx) wait_for_products(sum[kx]); [one short]":
        "the first waits for the products of all; the others only keep the compiler from reading sums earlier",
    "conv_patch_deep.cu conv_patch_deep_kernel: for (int i = 0; i < (kLineChannels + kLinesAtOnce - 1) / kLinesAtOnce; ++i) { "
    "[< to <=]": "the lines more have no channels",
    "conv_pointwise.cu add: if (first >= min(kLanes, pixels)) return; [>= to >]":
        "the thread more has no pixel, or moments that nobody stores",
    "conv_pointwise.cu conv_pointwise_kernel: for (int line = int(threadIdx.x / kPieces); line < slabs * kCols; "
    "line += int(blockDim.x) / kPieces) { [< to <=]": "the line more has no channels",
    "conv_patch_stride2.cu fill: for (int line = int(threadIdx.x) / (2 * kPieces); line < kAcross * kDown; line += kLinesAtOnce) { "
    "[< to <=]": "the line more lies in the padding of the patch",
    "conv_patch_stride2.cu conv_stride2_data_kernel: for (int i = 0; i < 2; ++i) wait_for_products(sum[i]); [one short]":
        "the first waits for the products of all; the other only keeps the compiler from reading sums earlier",
    "conv_patch_stride2.cu conv_stride2_data_kernel: for (int line = first_line; line < Shared::kPatchSide * Shared::kPatchSide; "
    "line += kLinesAtOnce) { [< to <=]": "the line more lies in the padding of the patch",
    "conv_patch_stride2.cu conv_stride2_weight_kernel: for (int ky = 0; ky < 3; ++ky) { [one short]":
        "write_sums() is for the compiler",
    "conv_patch_stride2.cu conv_stride2_weight_kernel: for (int ky = 0; ky < 3; ++ky) { [one short] #3":
        "the first waits for the products of all; the others only keep the compiler from reading sums earlier",
    "conv_patch_stride2.cu conv_stride2_weight_kernel: wait_for_products(two[ky]); [dropped]": "the other waits for the products of all",
    "conv_patch_stride2.cu conv_stride2_weight_kernel: wait_for_products(one[ky]); [dropped]": "the other waits for the products of all",
    "conv_patch_deep.cu conv_patch_deep_kernel: if (step < steps) { [< to <=]": "the step more has no channels",
    "conv_patch_deep.cu conv_patch_deep_kernel: for (int step = 0; step < steps; ++step) { [< to <=]": "the step more has no channels",
    "conv_patch_deep.cu conv_patch_deep_kernel: if (tap == 0 && (slab + 1) * kLineChannels < x.c) fill(slab + 1); [< to <=]":
        "the patch more has no channels",
    "conv_patch_deep.cu conv_patch_deep_kernel: if (t < kLanes * kCols) { [< to <=]":
        "the moments more lie behind those that are joined",
    "patches.cuh fill: for (int line = t / across; line < kLines; line += threads / across) { [< to <=]":
        "the line more lies in the padding of the patch",
    "mask_loss.cu for_each_batch: for (int first = 0; first < m.items.count; first += kLooks * kThreads) { [< to <=]":
        "the round more finds no item",
    "tile.cuh multiply_panels: const bool more = step + 1 < steps; [< to <=]":
        "the panel more is of zeros, for all of it lies past the end, and not multiplied",
    "index.cu gather_rows_kernel: for (int t = 0; t < int(kMostTables); ++t) { [< to <=]": "there is never a table more",
    "index.cu scatter_add_rows_kernel: for (int t = 0; t < int(kMostTables); ++t) { [< to <=]": "there is never a table more",
    "index.cu add_rows_of_target: for (int tile = 0; tile < x.cols; tile += kWarp * N) { [< to <=]": "the round more has no columns",
    "conv_weight_tiled.cu add_chunks_kernel: for (int first = group; first < chunks; first += kAddTogether * groups) { [< to <=]":
        "the round more has no chunk",
    "conv_weight_tiled.cu bias_kernel: for (int row = at.row; row < at.end; row += kBiasGroup * at.step) { [< to <=]":
        "rows past the end add nothing",
    "reduce.cu reduce_kernel: if (output < outputs.count) { [< to <=]":
        "the output more counts as the first, whose numbers are there, and is not stored",
    "conv_stem.cu fill: for (int first = int(threadIdx.x); first < kLines * kLine; first += kTogether * kThreads) { [< to <=]":
        "no thread's first number is the one past the end",
    "conv_stem.cu fill: const bool inside = at < kLines * kLine && unsigned(row) < unsigned(x.h) && "
    "unsigned(in_row) < unsigned(numbers); [< to <=]": "the number more is read inside the image and not stored",
    "conv_stem.cu fill: if (at < kLines * kLine) (&v[0][0])[at] = read[i]; [< to <=]":
        "the number more lies in the padding of the patch",
    "conv_stem.cu stem_kernel: if (o < kOuts && out + o < y.c) stats.row(block_of_grid())[out + o] = shared.parts[0][o]; [< to <=]":
        "the channel more is the first of the next outputs, which write it anew behind a barrier",
    "conv_stem.cu stem_kernel: __syncthreads();  // of the outputs after these [dropped]":
        "after the join parts[0] alone is read, which the first warp alone writes again, behind the __syncwarp() of its pixels",
    "conv_stem.cu stem_kernel: for (int out = 0; out < y.c; out += kOuts) { [< to <=]": "the round more has no results",
    "class_loss.cu for_each_labelled_pack: for (int m = 1; m < int(kMostMaps); ++m) { [< to <=]": "there is never a map more",
    "class_loss.cu for_each_labelled_pack: const bool here = p.labelled >= 0 && p.labelled < N; [no. 2 < to <=]":
        "no entry of the pack has that number",
    "pool.cu max_pool_kernel: for (int ix = first_x; ix < end_x; ix += kTogether) { [< to <=]":
        "the group more reads the last tap again, which is not greater than itself",
    "conv_kernel.cuh conv_kernel: if (block.empty()) return wait_for_kernel_before(); [dropped]":
        "a block without rows multiplies zeros and stores nothing",
    "conv_kernel.cuh conv_ahead_kernel: if (block.empty()) return wait_for_kernel_before(); [dropped]":
        "a block without rows multiplies zeros and stores nothing; a result with statistics has none",
    "conv_kernel.cuh store_moments: if (first_row < kGroups) { [< to <=]": "the moments more lie behind those that are joined",
    "sources.cuh next: const bool tap = walk.y < window.taps_y; [< to <=]":
        "a tap past the last one reads inside the image, and the filter is zero there",
    "element.cuh load_pack: if (count >= N) { [>= to >]": "the same numbers one by one",
    "element.cuh store_pack: if (count >= N) { [>= to >]": "the same numbers one by one",
    "element.cuh store_pack: for (int i = 0; i < N; ++i) { [one short]": "a pack that is cut off does not store its last number",
    "pointwise.cu binary_rows_kernel: if (i < at.count) left.v[i] = apply(op, left.v[i], right.v[i]); [< to <=]":
        "the number more is not stored",
    "softmax.cu softmax_kernel: for (int c = first; c < cols; c += lanes * N) { [< to <=]": "the pack more has no numbers",
    "softmax.cu softmax_kernel: for (int c = first; c < cols; c += lanes * N) { [< to <=] #2": "the pack more has no numbers",
    "softmax.cu softmax_kernel: for (int c = first; c < cols; c += lanes * N) { [< to <=] #3": "the pack more has no numbers",
    "softmax.cu softmax_backward_kernel: for (int c = first; c < cols; c += lanes * N) { [< to <=]": "the pack more has no numbers",
    "softmax.cu softmax_backward_kernel: for (int c = first; c < cols; c += lanes * N) { [< to <=] #2": "the pack more has no numbers",
    "norm.cu stats_kernel: for (int row = at.row; row < at.end; row += kStatsGroup * at.step) { [< to <=]":
        "rows past the end count as the thread's first, which adds nothing",
    "assign.cu pick_kernel: for (int first = 0; first < count; first += kChunk) { [< to <=]":
        "a chunk without candidates draws the best anew from the best",
    "assign.cu pick_kernel: if (found == topk || t >= topk) return; [>= to >]":
        "the thread more finds no place: at most `found` anchors are before it",
    "detect.cu list_candidates_kernel: for (int first = 0; first < p.classes; first += kWarp) { [< to <=]":
        "the round more has no class",
    "detect.cu suppress_window: bool gone = own >= count; [>= to >]":
        "one who has no candidate looks for rivals of the last, in vain: who is alive is asked of candidates alone",
    "detect.cu suppress_kernel: for (int first = 0; first < used && kept < p.rows; first += kWindow) { [< to <=]":
        "a window without candidates looks at the last key, which is there, and adds none",
    "detect.cu suppress_kernel: for (int first = 0; first < used && kept < p.rows; first += kWindow) { [no. 2 < to <=]":
        "all rows are there: the window more adds none",
    "mask_patches.cu mask_patches_kernel: for (int i = t; i < cells; i += kThreads) { [< to <=]":
        "the cell more has a place in the array, and nobody reads it",
    "augment.cu sample: if (!(sx > -1 && sy > -1 && sx < float(item.canvas_width) && sy < float(item.canvas_height))) [< to <=]":
        "at the edge itself all taps are border",
    "augment.cu sample: if (!(sx > -1 && sy > -1 && sx < float(item.canvas_width) && sy < float(item.canvas_height))) "
    "[no. 2 < to <=]": "at the edge itself all taps are border",
    "augment.cu recolored: if (hue < 0) hue += 180; [< to <=]": "hue 0 becomes 180, which becomes 0",
    "side_work.cpp join: memory_.joined(); [dropped]": "the memory is held back to the end of the recording",
}

# What checks a file: test case of test_cuda_host_checked, or "method:part of the detail" of op cases; the convolution kernels that
# are asked for, the only type, the blocks that are enough; of a header, the sources that it is built into; and test cases beside.
Check = collections.namedtuple("Check", "cases conv type blocks readers tests", defaults=("", "", "", (), ""))
CHECKS = {
    # Of the large shape a thread has several rows.
    "cuda/norm.cu": Check("batch_norm_join,batch_norm_rstd,batch_norm_correction,batch_norm_stats: 17],batch_norm_part: 17],"
                          "batch_norm_stats: 32],batch_norm_apply: 17],batch_norm_apply: 64],batch_norm_backward: 17],"
                          "batch_norm_backward: 32],batch_norm_backward: 64],batch_norm_apply: 127],batch_norm_backward: 127]"),
    "cuda/device/columns.cuh": Check("batch_norm_stats: 3],batch_norm_stats: 17],batch_norm_stats: 64],batch_norm_stats: 88],"
                                     "batch_norm_stats: 127],batch_norm_backward: 88]", readers=("cuda/norm.cu",)),
    # Of the last two a block has more columns than it joins at once, and twice as many. More chunks than are read together are in a
    # test of their own.
    "cuda/device/chunks.cuh": Check("batch_norm_stats: 3],batch_norm_stats: 17],batch_norm_stats: 64],batch_norm_stats: 88],"
                                    "batch_norm_backward: 88],bias_backward: 33->17,bias_backward: 24->40,"
                                    "conv2d_with_stats: 128->120 averages,conv2d_with_stats: 16->256 averages", conv="wgmma", blocks="0",
                                    readers=("cuda/norm.cu", "cuda/conv_weight_tiled.cu", "cuda/conv_wgmma.cu",
                                             "tests/cuda_host/checked_test.cpp"), tests="chunks that blocks leave*"),
    "cuda/conv_stem.cu": Check("conv2d: 3->16,conv2d: 3->24,conv2d_backward_weight: 3->16,conv2d_backward_weight: 3->24,"
                               "conv2d_with_stats: 3->16 averages,conv2d_with_stats: 3->24 averages", type="bf16", blocks="0"),
    "cuda/class_loss.cu": Check("bce_with_labels,bce_with_labels_backward"),
    "cuda/device/reduce.cuh": Check("ciou_loss,dfl_loss,assign,collect_positives", readers=("cuda/losses.cu", "cuda/assign.cu")),
    "cuda/device/warpgroup.cuh": Check("*warpgroup*", readers=("cuda/conv_wgmma.cu",)),
    # In f32 and in rows that are not aligned by plain steps, else by copies that go on by themselves; on warpgroups where they can.
    "cuda/device/tile.cuh": Check("conv2d: 3->4,conv2d: 33->17,conv2d: 24->40,conv2d: 16->72,conv2d_backward_data: 16->24", conv="wgmma",
                                  readers=("cuda/conv_tiled.cu", "cuda/conv_wgmma.cu")),
    "cuda/device/tensor_core.cuh": Check("conv2d: 3->4,conv2d: 24->40", readers=("cuda/conv_tiled.cu",)),
    "cuda/device/sources.cuh": Check("conv2d: 3->4,conv2d: 33->17,conv2d: 16->24,conv2d_backward_data: 33->17,"
                                     "conv2d_backward_data: 16->24,conv2d_backward_weight: 3->4,conv2d_backward_weight: 33->17,"
                                     "conv2d_backward_weight: 16->24,conv_transpose2x2",
                                     readers=("cuda/conv_tiled.cu", "cuda/conv_weight_tiled.cu")),
    "cuda/device/conv_kernel.cuh": Check("conv2d: 3->4,conv2d: 33->17,conv2d: 16->24,conv2d: 24->40,conv2d_backward_data: 33->17,"
                                         "conv2d_backward_data: 5->3,conv2d_backward_data: 16->24,conv2d_with_stats: 16->24 averages,"
                                         "conv2d_with_stats: 16->72 averages,conv2d_with_stats: 24->40 averages",
                                         readers=("cuda/conv_tiled.cu",)),
    "cuda/conv_weight_tiled.cu": Check("conv2d_backward_weight: 3->4,conv2d_backward_weight: 33->17,conv2d_backward_weight: 16->24,"
                                       "conv2d_backward_weight: 24->40,conv_transpose2x2_backward_weight,bias_backward: 33->17,"
                                       "bias_backward: 24->40"),
    "cuda/conv_naive.cu": Check("conv2d: 3->4,conv2d: 33->17,conv2d_backward_data: 3->4,conv2d_backward_data: 33->17,"
                                "conv2d_backward_weight: 3->4,conv2d_backward_weight: 6->7,bias_backward: 3->4,"
                                "conv_transpose2x2: 5->6,conv_transpose2x2_backward_data: 5->6,"
                                "conv_transpose2x2_backward_weight: 5->6", conv="naive", type="f32"),
    "cuda/matmul_naive.cu": Check("matmul", conv="naive", type="f32"),
    "cuda/matmul_tiled.cu": Check("matmul", type="f32"),
    "cuda/index.cu": Check("gather_rows,scatter_add_rows"),
    "cuda/optim.cu": Check("sgd,adam,lerp,sum_of_squares,all_finite"),
    "cuda/random.cu": Check("uniform,normal"),
    "cuda/device/philox.cuh": Check("uniform,normal", readers=("cuda/random.cu",)),
    "cuda/pointwise.cu": Check("unary:silu,unary_backward:silu,add_scaled,scale,binary:add"),
    "cuda/reduce.cu": Check("reduce,argmax,topk"),
    "cuda/softmax.cu": Check("softmax,softmax_backward"),
    "cuda/device/strided.cuh": Check("copy:NCHW,fill:a part,binary:add,reduce:sum", readers=("cuda/copy.cu", "cuda/pointwise.cu", "cuda/reduce.cu")),
    # Softmax adds up what lies past the end of a row; a tile of 40 outputs is stored in several packs.
    "cuda/device/element.cuh": Check("unary:silu,unary_backward:silu,scale,copy:rows,softmax_backward,conv2d: 24->40",
                                     readers=("cuda/pointwise.cu", "cuda/copy.cu", "cuda/softmax.cu", "cuda/conv_tiled.cu")),
    "cuda/device/moments.cuh": Check("batch_norm_stats: 17],batch_norm_stats: 64]", readers=("cuda/norm.cu",)),
    "cuda/device/loss_sum.cuh": Check("bce_with_logits", readers=("cuda/losses.cu",)),
    # Several tiles, that end within a patch and do not, and channels that fill the columns, do not, and need several tiles.
    "cuda/conv_patch.cu": Check("conv2d:17x16 16->32,conv2d:3x2x2 32->40,conv2d: 16->88,conv2d_with_stats:17x16 16->32 averages,"
                                "conv2d_with_stats:3x2x2 32->40 averages,conv2d_with_stats: 16->88 averages,"
                                "conv2d_with_stats:18x35 48->80 averages,conv2d_backward_data:17x16 16->32,"
                                "conv2d_backward_data:9x11 16->32,conv2d_backward_data: 72->16,"
                                "conv2d_backward_weight:17x16 16->32,conv2d_backward_weight:7x9 40->24,"
                                "conv2d_backward_weight: 16->88,conv2d_backward_weight: 72->16",
                                conv="wgmma", type="bf16", blocks="0"),
    # An odd number of tiles, channels that end with a slab and within one, rings of six, five and three stages.
    "cuda/conv_patch_deep.cu": Check("conv2d:144->24 bias silu residual,conv2d:8x8 80->80 bias,conv2d_backward_data:8x8 80->80,conv2d_backward_data:80->96,conv2d_backward_data:112->128,"
                                     "conv2d_with_stats:80->96 averages,conv2d_with_stats:144->24 averages",
                                     conv="wgmma", type="bf16", blocks="0"),
    # Several tiles for a warpgroup, the last one cut, slabs that end within a line, columns that do not fill their tile.
    "cuda/conv_pointwise.cu": Check("conv2d:20x33 32->40,conv2d:80->192,conv2d:29x17 144->64,conv2d_backward_data:20x33 32->40,"
                                    "conv2d_backward_data:80->192,conv2d_backward_data:29x17 144->64,conv2d_with_stats:20x33 32->40 averages,"
                                    "conv2d_with_stats:80->192 averages,conv2d_with_stats:29x17 144->64 averages",
                                    conv="wgmma", type="bf16", blocks="0"),
    "cuda/device/result_lines.cuh": Check("conv2d:20x33 32->40,conv2d:29x17 144->64,conv2d_backward_data:29x17 144->64,conv2d:3x2x2 32->40", conv="wgmma",
                                          type="bf16", blocks="0", readers=("cuda/conv_pointwise.cu", "cuda/conv_patch.cu")),
    "cuda/device/weight_kernel.cuh": Check("conv2d_backward_weight:20x33 32->40,conv2d_backward_weight:80->192,"
                                           "conv2d_backward_weight: 48->80,conv2d_backward_weight: 16->72,conv2d_backward_weight: 24->40,"
                                           "conv_transpose2x2_backward_weight", conv="wgmma", type="bf16", blocks="0",
                                           readers=("cuda/conv_weight_wgmma.cu",)),
    # Several tiles for a block, that end within a patch and do not, channels that end within a slot and that need two tiles.
    "cuda/conv_patch_stride2.cu": Check("conv2d:35x21 16->32,conv2d:34x18 32->64,conv2d:17x12 8->48,conv2d_backward_data:35x21 16->32,"
                                        "conv2d_backward_data:34x18 32->64,conv2d_backward_data:17x18 48->24,"
                                        "conv2d_backward_weight:35x21 16->32,conv2d_backward_weight:34x18 32->64,"
                                        "conv2d_backward_weight:17x12 8->48,conv2d_with_stats:17x12 8->48 averages,"
                                        "conv2d_with_stats:35x21 16->32 averages", conv="wgmma", type="bf16", blocks="0"),
    # Each of the three kernels that have them, with pixels and columns that end within a tile; a residual, and a gradient that is added.
    "cuda/device/patches.cuh": Check("conv2d:3x2x2 32->40,conv2d:2x4 48->24,conv2d:9x11 16->32,conv2d:144->24,conv2d:17x12 8->48,"
                                     "conv2d_backward_data:9x11 16->32,conv2d_backward_data: 72->16", conv="wgmma", type="bf16", blocks="0",
                                     readers=("cuda/conv_patch.cu", "cuda/conv_patch_deep.cu", "cuda/conv_patch_stride2.cu")),
    "cuda/device/fragment_moments.cuh": Check("conv2d_with_stats:3x2x2 32->40 averages,conv2d_with_stats:17x16 16->32 averages,"
                                              "conv2d_with_stats: 16->88 averages,conv2d_with_stats:17x12 8->48 averages",
                                              conv="wgmma", type="bf16", blocks="0",
                                              readers=("cuda/conv_patch.cu", "cuda/conv_patch_stride2.cu")),
    "cuda/copy.cu": Check("fill,copy"),
    "cuda/pool.cu": Check("max_pool2d,max_pool2d_backward,upsample2x,upsample2x_backward,resize_bilinear"),
    "cuda/losses.cu": Check("bce_with_logits,bce_with_logits_backward,ciou_loss,ciou_loss_backward,dfl_loss,dfl_loss_backward"),
    # In wide packs and one by one; more items than a batch, than a block looks at in one go; more tiles than warps, more channels than lanes.
    "cuda/mask_loss.cu": Check("mask_loss:4 items,mask_loss_backward:4 items,mask_loss: 5 prototypes,mask_loss_backward: 5 prototypes,mask_loss: 32 prototypes,"
                               "mask_loss_backward: 32 prototypes,mask_loss:1100 items,mask_loss_backward:1100 items,"
                               "mask_loss: 36 prototypes,mask_loss_backward: 36 prototypes", type="bf16"),
    "cuda/update.cu": Check("update"),
    "cuda/augment.cu": Check("*augmentation*"),
    "cuda/detect.cu": Check("detect"),
    "cuda/mask_patches.cu": Check("mask_patches"),
    "cuda/assign.cu": Check("assign,collect_positives"),
    "cuda/side_work.cpp": Check("*calls beside have the bits*"),
    "bench/kernels/cuda/conv_rungs.cu": Check("*ladder*"),
    "bench/kernels/cuda/norm_rungs.cu": Check("*ladder*"),
}

SWITCH = r"""
#pragma once
extern "C" const int tessera_mistake;  // constant for the kernels, so that the thread sanitizer's hooks do not see it
extern "C" int tessera_reached;
#define TESSERA_MISTAKE(n) (tessera_mistake == (n) && (tessera_reached = 1))
namespace tessera_mistakes {
enum Kind { kMore, kShort, kGuardMore };
template <int n, Kind kind>
struct Compare {
  int step = 0;
};
template <class A, int n, Kind kind>
struct Left {
  A a;
  int step;
};
template <class A, int n, Kind kind>
[[gnu::always_inline]] inline Left<A, n, kind> operator<(A a, Compare<n, kind> c) {
  return {a, c.step};
}
// `a < Compare > b` binds as `a < b` does.
template <class A, int n, Kind kind, class B>
[[gnu::always_inline]] inline bool operator>(Left<A, n, kind> left, B b) {
  if constexpr (kind == kMore) return TESSERA_MISTAKE(n) ? left.a <= b : left.a < b;
  if constexpr (kind == kShort) return TESSERA_MISTAKE(n) ? left.a + left.step < b : left.a < b;
  if constexpr (kind == kGuardMore) return TESSERA_MISTAKE(n) ? left.a > b : left.a >= b;
}
}  // namespace tessera_mistakes
"""
SWITCHED = r"""
#include <cstdio>
#include <cstdlib>
extern "C" {
int tessera_mistake = 0, tessera_reached = 0;
}
static const struct Report {
  Report() {
    if (const char* n = std::getenv("TESSERA_MISTAKE")) tessera_mistake = std::atoi(n);
  }
  ~Report() {
    if (tessera_reached) std::fputs("mistake reached\n", stderr);
  }
} report;
"""

Mistake = collections.namedtuple("Mistake", "description line inserts")  # inserts: (position, text with @ for its number)


def closing(text, at):
    """Position of the bracket that closes the one at `at`."""
    pair = text[at] + {"(": ")", "{": "}"}[text[at]]
    depth = 0
    for end in range(at, len(text)):
        depth += (text[end] == pair[0]) - (text[end] == pair[1])
        if depth == 0:
            return end
    return len(text)


def bodies(text):
    """(name, begin, end) of the body of every function that runs on the device or forks and joins streams."""
    head = r"\b__(?:global|device)__\b(?:[^(;{]*__launch_bounds__\((?:[^()]|\([^()]*\))*\))?(?:[^(;{]*operator\(\))?[^(;{]*\("
    for match in re.finditer(rf"{head}|\bvoid SideWork::\w+\(", text):
        after = closing(text, match.end() - 1) + 1
        begin = text.find("{", after)
        if begin >= 0 and ";" not in text[after:begin]:  # else a declaration
            name = re.search(r"(operator\(\)|\w+)\s*\($", match.group())
            yield name[1] if name else "", begin, closing(text, begin)


# Statements that order something, each of which can be forgotten.
ORDERING = (r"(?:__sync(?:threads|warp)\([^()]*\)|sync_warpgroup\(\)|wait_for_kernel_before\(\)|wait_for_copies<[^;]*>\(\)|close_copies\(\)"
            r"|__threadfence\(\)|open_products\(\)|close_products\(\)|wait_for_products\([^;]*\)|publish_to_products\(\)|\w+\.publish\(\)|\w+\.settle\(\)"
            r"|\w+(?:\.|->)(?:record|hold_up|begin|joined)\([^;]*\));")


def mistakes(path):
    """All mistakes to make in a file, in its order."""
    text = (ROOT / path).read_text()
    code = re.sub(r"//[^\n]*", lambda m: " " * len(m.group()), text)  # without comments, at the same places
    found = {}  # by position and kind: functions lie within each other

    def add(function, position, change, *inserts):
        found.setdefault((position, change), (function, inserts))

    def compare(function, begin, end, step=None):  # step: of a loop that starts at a number
        for m in re.finditer(r" (<|>=) ", code[begin:end]):
            at = begin + m.start() + 1
            line = code[code.rfind("\n", 0, at) + 1 : code.find("\n", at)]
            if "constexpr" in line or "static_assert" in line:
                continue
            bound = re.match(r"[^;&|)]*", code[at + 2 : end])[0].strip()
            short = step is not None and re.fullmatch(r"([A-Z]\b|(\w+(::|->))?k[A-Z]\w*(<\w+>)?|half|[\d */])+", bound) is not None
            kind, change = ("kShort", "one short") if short else ("kMore", "< to <=") if m[1] == "<" else ("kGuardMore", ">= to >")
            operand = f"tessera_mistakes::Compare<@, tessera_mistakes::{kind}>{{{f'int({step})' if short else ''}}}"
            add(function, at, change, (at, f"< {operand} >", len(m[1])))

    for name, begin, end in bodies(code):
        for m in re.finditer(ORDERING, code[begin:end]):
            at = begin + m.start()
            add(name, at, "dropped", (at, "TESSERA_MISTAKE(@) ? void() : ", 0))
            groups = re.match(r"wait_for_copies<(.*)>\(\);", m.group())
            if groups:
                add(name, at, "one group less", (at, f"TESSERA_MISTAKE(@) ? wait_for_copies<{groups[1]} + 1>() : ", 0))
        for m in re.finditer(r"\bfor \(", code[begin:end]):
            open_at = begin + m.end() - 1
            clauses = code[open_at : closing(code, open_at)].split(";")
            if len(clauses) == 3:
                first = open_at + len(clauses[0]) + 1
                step = re.search(r"\+= (.*)", clauses[2]) or re.search(r"(\w+) \*= 2", clauses[2])
                starts = re.search(r"= \d+$", clauses[0])
                compare(name, first, first + len(clauses[1]), (step[1] if step else "1") if starts else None)
        for m in re.finditer(r"\bif \(", code[begin:end]):
            open_at = begin + m.end() - 1
            compare(name, open_at, closing(code, open_at))
        for m in re.finditer(r"\bbool \w+ = ([^;{]*);", code[begin:end]):
            compare(name, begin + m.start(1), begin + m.end(1))
        body = code[begin:end]
        shared = re.findall(r"TESSERA_SHARED\((\w+),", body) + re.findall(r"TESSERA_DYNAMIC_SHARED\([^;]*, (\w+)\)", body)
        for m in re.finditer(rf"\b(?:{'|'.join(sorted(set(shared)) or ['(?!)'])})\[([^\[\]]+)\]", body):
            add(name, begin + m.start(1), "+ 1", (begin + m.start(1), "(", 0), (begin + m.end(1), ") + TESSERA_MISTAKE(@)", 0))
        for m in re.finditer(r"[\w\]]\[(now|filled|stage|slab % 2|1 - now)\]|shared->\w+\[(at)\]", body):
            g = 1 if m[1] else 2
            add(name, begin + m.start(g), "another stage", (begin + m.start(g), f"TESSERA_MISTAKE(@) ? ({m[g]}) == 0 : ", 0))
        for m in re.finditer(r"(?<!int )\b(now|filled|stage) = (?=[^;]+;)", body):
            add(name, begin + m.start(), "no turn", (begin + m.end(), f"TESSERA_MISTAKE(@) ? {m[1]} : ", 0))

    result, same = [], collections.Counter()
    for (position, change), (function, inserts) in sorted(found.items()):
        first = text.rfind("\n", 0, position) + 1
        operator = code[first:position].count(" < ") + code[first:position].count(" >= ")
        which = f"no. {operator + 1} " if operator > 0 and ("<" in change or ">" in change) else ""
        description = f"{pathlib.Path(path).name} {function}: {text[first:text.find(chr(10), first)].strip()} [{which}{change}]"
        same[description] += 1
        if same[description] > 1:
            description += f" #{same[description]}"
        result.append(Mistake(description, text.count("\n", 0, position) + 1, inserts))
    return result


def with_mistakes(path, numbered):
    """The file with all of them in it, each behind its number."""
    text = (ROOT / path).read_text()
    inserts = [(at, order, new.replace("@", str(number)), length)
               for number, mistake in numbered for order, (at, new, length) in enumerate(mistake.inserts)]
    for at, _, new, length in sorted(inserts, reverse=True):
        text = text[:at] + new + text[at + length :]
    return text


def included(path, known={}):
    """Files of cuda/ that a file reads, itself among them."""
    if path not in known:
        known[path] = {path}
        for name in re.findall(r'#include "(cuda/[^"]+)"', (ROOT / path).read_text()):
            known[path] |= included(name)
    return known[path]


def readers(path):
    kernels = [str(p.relative_to(ROOT)) for p in sorted(ROOT.glob("cuda/*.cu"))]
    return [path] if path.endswith((".cu", ".cpp")) else [k for k in kernels if path in included(k)]


class Builder:
    def __init__(self, build):
        self.build = build
        self.compile_one = {}
        for entry in json.loads((build / "compile_commands.json").read_text()):
            kernels = "tessera_cuda_checked.dir" in entry["command"] and entry["file"].endswith((".cu", "side_work.cpp"))
            if kernels or "test_cuda_host_checked.dir" in entry["command"]:
                self.compile_one[str(pathlib.Path(entry["file"]).relative_to(ROOT))] = shlex.split(entry["command"])
        steps = subprocess.run(["ninja", "-C", build, "-t", "commands", "test_cuda_host_checked"], capture_output=True, text=True,
                               check=True)
        self.link = next(line for line in reversed(steps.stdout.splitlines()) if "-o bin/test_cuda_host_checked" in line)

    def run(self, command, **more):
        done = subprocess.run(command, cwd=self.build, capture_output=True, text=True, **more)
        if done.returncode != 0:
            sys.exit("does not build:\n" + "\n".join([l for l in done.stderr.splitlines() if "error" in l][:10]))

    def program(self, folder, path, text, readers):
        copy = folder / path
        copy.parent.mkdir(parents=True)
        copy.write_text(text)
        (folder / "switch.h").write_text(SWITCH)
        (folder / "switched.cpp").write_text(SWITCHED)
        self.run(["c++", "-c", f"{folder}/switched.cpp", "-o", f"{folder}/switched.o"])
        objects, link = [f"{folder}/switched.o"], self.link
        for kernel in readers:
            # -O1: building is most of the time.
            command = ["-O1" if word == "-O3" else word for word in self.compile_one[kernel] if word != "-Werror"]
            objects.append(f"{folder}/{len(objects)}.o")
            link = link.replace(command[command.index("-o") + 1], "")  # of a test, which is in no library
            command[command.index("-o") + 1] = objects[-1]
            if kernel == path:
                command[command.index("-c") + 1] = str(copy)
            command.insert(next(i for i, a in enumerate(command) if a.startswith("-I")), f"-I{folder}")
            # gcc 12 fails over the comparisons with its scalar replacement. What a mistake leaves unwritten is seen: else it may be taken
            # for what would have been written.
            self.run(command + ["-w", "-fno-tree-sra", "-ftrivial-auto-var-init=pattern", "-include", f"{folder}/switch.h"])
        # The mistaken objects come before the library, which then has nothing to add to them.
        self.run(link.replace("-o bin/test_cuda_host_checked", f"-o {folder}/program {' '.join(objects)}"), shell=True)
        return folder / "program"


def outcome(program, check, number, seconds):
    """(passed, what was seen, whether the place of the mistake was run); ends it after so many seconds of computing"""
    environment = dict(os.environ, TESSERA_MISTAKE=str(number), TESSERA_TEST_CONV=check.conv, TESSERA_TEST_TYPE=check.type,
                       TESSERA_TEST_BLOCKS=check.blocks)
    cases = check.cases
    if not cases.startswith("*"):
        environment["TESSERA_TEST_CASES"] = cases
        cases = ",".join(filter(None, ("*on chosen cases", check.tests)))
    limit = lambda: resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
    run = subprocess.run([program, f"--test-case={cases}", "--no-skip", "--abort-after=1"], capture_output=True, text=True,
                         errors="replace", env=environment, preexec_fn=limit)
    if run.returncode in (-9, -24):
        return False, "does not end", True
    if run.returncode >= 0 and not re.search(r"test cases: +[1-9]", run.stdout):
        sys.exit(f"no test case {cases}")
    said = re.search(r"emulated GPU, seed \d+: (.*)", run.stderr) or re.search(r"logged: (.*)", run.stdout)
    return run.returncode == 0, said[1][:150] if said else f"ends with {run.returncode}", "mistake reached" in run.stderr


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("build", type=pathlib.Path)
    parser.add_argument("files", nargs="*")
    parser.add_argument("--only", default="")
    parser.add_argument("--every", type=int, default=1)
    parser.add_argument("--list", action="store_true")
    args = parser.parse_intermixed_args()

    patterns = ("cuda/*.cu", "cuda/side_work.cpp", "bench/kernels/cuda/*.cu", "cuda/device/*.cuh")
    sources = sorted(str(p.relative_to(ROOT)) for pattern in patterns for p in ROOT.glob(pattern))
    sources.remove("cuda/device/platform.cuh")  # the emulation brings its own
    every = {path: mistakes(path) for path in sources}
    known = {m.description for all_of in every.values() for m in all_of}
    stale = [key for key in EQUIVALENT if key not in known]
    for key in stale:
        print(f"EQUIVALENT names no mistake: {key}")
    if stale:
        return 1

    wrong = []
    table = []
    for path in sources:
        if args.files and not any(name in path for name in args.files):
            continue
        numbered = [(n, m) for n, m in enumerate(every[path], 1) if re.search(args.only, m.description)][:: args.every]
        if args.list:
            for n, m in numbered:
                print(f"{n:4} {path}:{m.line}  {m.description}")
            continue
        if not numbered:
            continue
        check = CHECKS.get(path, Check("*on every case"))
        builder = Builder(args.build.resolve())
        with tempfile.TemporaryDirectory() as name:
            program = builder.program(pathlib.Path(name), path, with_mistakes(path, numbered), check.readers or readers(path))
            before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
            good, said, _ = outcome(program, check, 0, 600)
            enough = 10 + int(3 * (resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - before))
            if not good:
                sys.exit(f"{path} without mistakes does not pass: {said}")
            count = collections.Counter()
            for n, m in numbered:
                passed, said, reached = outcome(program, check, n, enough)
                listed = m.description in EQUIVALENT
                word = "equivalent" if passed and listed else "SURVIVED" if passed else "CAUGHT BUT LISTED" if listed else "caught"
                if not reached:
                    said = "never reached" if passed else said
                if word.isupper():
                    wrong.append(m.description)
                count[word] += 1
                said = EQUIVALENT[m.description] if word == "equivalent" else said
                print(f"{n:4} {word}: {m.description}  ({path}:{m.line})\n       {said}", flush=True)
        table.append(f"| `{path}` | {len(numbered)} | {count['caught']} | {count['equivalent']} | {count['SURVIVED']} |")
        print(table[-1], flush=True)
    if len(table) > 1:
        print("| file | mistakes | caught | equivalent | survived |\n|---|---|---|---|---|\n" + "\n".join(table))
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
