#include "yolo/eval/evaluator.h"

#include <algorithm>
#include <chrono>
#include <functional>
#include <iterator>
#include <span>
#include <utility>

#include "autograd/grad_mode.h"
#include "data/batch.h"
#include "tensor/backend.h"
#include "tensor/base/parallel.h"
#include "yolo/eval/batch_results.h"
#include "yolo/eval/evaluation_mode.h"
#include "yolo/eval/replayed_forward.h"
#include "yolo/eval/scorer.h"

namespace tessera {

namespace {

using Clock = std::chrono::steady_clock;
double ms_since(Clock::time_point t) { return std::chrono::duration<double, std::milli>(Clock::now() - t).count(); }

// Copies the outputs of a part, which begins at image `first`, into those of the whole batch of n images. In evaluation the network
// treats each image by itself, so they are what the whole batch would give, bit for bit.
void join(RawOutputs& whole, RawOutputs part, int64_t first, int64_t n) {
  const auto place = [&](Variable& into, const Variable& from) {
    const Tensor& t = from.data();
    if (!into.defined()) into = Variable(Tensor::empty({n, t.size(1), t.size(2), t.size(3)}, t.dtype(), t.device()));
    into.data().narrow(0, first, t.size(0)).copy_from(t);
  };
  if (part.prototypes.size(0) == n) {
    whole = std::move(part);
    return;
  }
  for (size_t l = 0; l < size_t(kAnchorLevels); ++l) {
    place(whole.box[l], part.box[l]);
    place(whole.cls[l], part.cls[l]);
    place(whole.coefficients[l], part.coefficients[l]);
  }
  place(whole.prototypes, part.prototypes);
}

// What the ranks tell each other about a round.
struct RankPart {
  LossReport loss;
  int64_t images = 0;
  bool stop = false;
};

struct ScoredFigures {
  int64_t images, instances;
  MetricSet box, mask;
};

// Rank 0 gets the results of all ranks, in the order of the data set; the others get nothing.
std::vector<ImageResult> gathered(std::vector<ImageResult> own, Communicator& ranks) {
  std::vector<std::vector<ImageResult>> parts;
  for (const std::string& bytes : ranks.gather(pack(own), 0, "detections")) parts.push_back(unpack(bytes));
  return interleaved(std::move(parts));
}

// Rank 0 has scored: its figures to all.
void share_figures(ValidationResult& r, Communicator& ranks) {
  ScoredFigures figures{r.images, r.instances, r.box, r.mask};
  ranks.broadcast(figures, 0, "the figures of a validation");
  r.images = figures.images, r.instances = figures.instances;
  r.box = figures.box, r.mask = figures.mask;
}

void add_items(LossItems& sum, const LossItems& x) {
  sum.box += x.box, sum.seg += x.seg, sum.cls += x.cls, sum.dfl += x.dfl;
}

// From batches to what scoring needs of their images: the network, some images at a time, then detections and masks.
class BatchEvaluation {
 public:
  BatchEvaluation(SegNetwork& network, const SegDataset& data, const EvaluatorOptions& options, const EvaluatorHooks& hooks)
      : network_(network), data_(data), options_(options), hooks_(hooks) {
    masks_ = hooks.detections                   ? OriginalMasks::kAll
             : options.style == MapStyle::kCoco ? OriginalMasks::kCompared
                                                : OriginalMasks::kNone;
    detection_.confidence = options.confidence;
    detection_.iou = options.iou;
    detection_.multi_label = network.nc() > 1;
    detection_.agnostic = options.agnostic;
    detection_.max_detections = options.max_detections;
  }

  // An image of the data set once more.
  void again(int64_t index) {
    std::vector<Sample> sample;
    sample.push_back(data_.get(index, 0));
    const Batch batch = collate(std::move(sample));
    network_.place(batch.images);
    hooks_.again(batch, detections(network_.run()));
  }

  // Hands the results to take() part by part, in order. Adds the milliseconds of each phase to `spent`, without those of take().
  void run(int64_t index, const Batch& batch, LossReport& loss, SpeedMs& spent,
           const std::function<void(std::vector<ImageResult>)>& take) {
    const Device device = network_.device();
    const int64_t n = batch.size(), step = images_at_once(n, batch.images.size(1) * batch.images.size(2), device);
    RawOutputs whole;  // for the loss
    for (int64_t first = 0; first < n; first += step) {
      const auto t1 = Clock::now();
      network_.place(batch.images.narrow(0, first, std::min(step, n - first)));
      spent.preprocess += ms_since(t1);
      const auto t2 = Clock::now();
      const RawOutputs outputs = network_.run();
      backend_for(device).synchronize();  // the time is the network's own
      spent.inference += ms_since(t2);
      const auto t3 = Clock::now();
      if (hooks_.loss) join(whole, outputs, first, n);
      spent.loss += ms_since(t3);
      const auto t4 = Clock::now();
      const BatchDetections found = detections(outputs);
      std::vector<ImageResult> results = image_results({batch, first, found}, data_, options_.style, masks_);
      spent.postprocess += ms_since(t4);
      take(std::move(results));
      for (const auto& listener : hooks_.part_done) listener(index, batch, first, found);
    }
    if (hooks_.loss) {
      const auto t3 = Clock::now();
      loss = hooks_.loss(whole, batch);
      spent.loss += ms_since(t3);
    }
  }

 private:
  BatchDetections detections(const RawOutputs& outputs) const {
    BatchDetections found = detect(outputs, network_.strides(), detection_);
    if (options_.single_class) {
      for (Detections& d : found.images) std::fill(d.classes.begin(), d.classes.end(), 0);
    }
    return found;
  }

  SegNetwork& network_;
  const SegDataset& data_;
  const EvaluatorOptions& options_;
  const EvaluatorHooks& hooks_;
  OriginalMasks masks_;
  DetectParams detection_;
};

// One validation: what its rounds share. In a round each rank takes a batch of its own through the network, if it has one left, and
// rank 0 scores the images of all.
class ValidationRun {
 public:
  ValidationRun(const std::vector<std::string>& class_names, const EvaluatorOptions& options, SegNetwork& network,
                const SegDataset& data, Loader& loader, const EvaluatorHooks& hooks, Communicator& ranks)
      : options_(options),
        data_(data),
        loader_(loader),
        hooks_(hooks),
        ranks_(ranks),
        scorer_(class_names, options.style, data),
        evaluation_(network, data, options, hooks) {}

  void round(int64_t index) {
    RankPart part;
    std::vector<ImageResult> kept = evaluate_batch(index, part);
    const auto start = Clock::now();
    const bool stop = join_ranks(part);
    if (!ranks_.alone()) {
      std::vector<ImageResult> of_all = gathered(std::move(kept), ranks_);
      score(of_all);
    }
    spent_.evaluate += ms_since(start);
    if (hooks_.progress) hooks_.progress(done_, data_.size());
    if (stop) throw Error(ErrorCode::kInterrupted, "validation was interrupted", {}, "start it again");
  }

  // After the last round.
  ValidationResult finish() {
    const auto start = Clock::now();
    if (ranks_.leader()) {
      Scorer::Extras extras;
      if (hooks_.curves) extras.box_curves = &box_curves_, extras.mask_curves = &mask_curves_;
      if (hooks_.images) extras.images = &scores_;
      scorer_.finish(result_, extras);
    }
    share_figures(result_, ranks_);
    result_.map_style = options_.style == MapStyle::kCoco ? "coco" : "original";
    spent_.evaluate += ms_since(start);
    if (const double n = double(loader_.rounds()); n > 0) {
      for (double* x : {&result_.loss.box, &result_.loss.seg, &result_.loss.cls, &result_.loss.dfl}) *x /= n;
    }
    const double n = std::max<double>(1.0, double(own_));
    result_.speed = {spent_.load / n, spent_.preprocess / n,  spent_.inference / n,
                     spent_.loss / n, spent_.postprocess / n, spent_.evaluate / n};
    return result_;
  }

  // Hands curves and scores of images to those who asked for them, and shows them the images that they ask to see again.
  void report_images() {
    if (!ranks_.leader()) return;
    if (hooks_.curves) hooks_.curves(box_curves_, mask_curves_);
    if (!hooks_.images) return;
    for (const int64_t index : hooks_.images(scores_)) evaluation_.again(index);
  }

 private:
  // The next batch of this rank; in the last round there may be none. Of one rank alone its images are scored at once, while their
  // masks are still in the caches; else they are returned, for rank 0.
  std::vector<ImageResult> evaluate_batch(int64_t index, RankPart& part) {
    std::vector<ImageResult> kept;
    const auto start = Clock::now();
    if (!loader_.next(batch_)) return kept;
    spent_.load += ms_since(start);
    evaluation_.run(index, batch_, part.loss, spent_, [&](std::vector<ImageResult> results) {
      const auto scoring = Clock::now();
      part.images += int64_t(results.size());
      if (ranks_.alone()) {
        score(results);
      } else {
        std::move(results.begin(), results.end(), std::back_inserter(kept));
      }
      spent_.evaluate += ms_since(scoring);
    });
    own_ += part.images;
    return kept;
  }

  // Counts and losses of all ranks; whether one of them wants to stop.
  bool join_ranks(RankPart own) {
    own.stop = hooks_.stop && hooks_.stop();
    bool stop = false;
    std::vector<LossReport> losses;
    for (const RankPart& p : ranks_.all_gather(own, "the state of a validation batch")) {
      done_ += p.images;
      stop = stop || p.stop;
      losses.push_back(p.loss);
    }
    if (hooks_.loss) add_items(result_.loss, joined(losses).items);
    return stop;
  }

  void score(std::span<ImageResult> results) {
    scorer_.add(results);
    if (!hooks_.detections) return;
    std::vector<std::vector<ScoredDetection>> detections;
    for (ImageResult& r : results) detections.push_back(std::move(r.scored));
    hooks_.detections(detections);
  }

  const EvaluatorOptions& options_;
  const SegDataset& data_;
  Loader& loader_;
  const EvaluatorHooks& hooks_;
  Communicator& ranks_;
  Scorer scorer_;
  BatchEvaluation evaluation_;
  Batch batch_;
  ValidationResult result_;     // its loss: the sum over the batches so far
  SpeedMs spent_;               // milliseconds in all
  int64_t done_ = 0, own_ = 0;  // images so far, of all ranks and of this one
  DetectionCurves box_curves_, mask_curves_;
  ImageScores scores_;
};

}  // namespace

Evaluator::Evaluator(std::vector<std::string> class_names, EvaluatorOptions options)
    : class_names_(std::move(class_names)), options_(options) {}

ValidationResult Evaluator::run(YoloSeg& model, const SegDataset& data, Loader& loader, const EvaluatorHooks& hooks,
                                Communicator& ranks) const {
  const auto start = Clock::now();
  loader.start_epoch(0);  // reads the first images while the weights are folded
  const EvaluationMode mode(model);
  ReplayedForward network(model);
  return run_epoch(start, network, data, loader, hooks, ranks);
}

ValidationResult Evaluator::run(SegNetwork& network, const SegDataset& data, Loader& loader, const EvaluatorHooks& hooks,
                                Communicator& ranks) const {
  const auto start = Clock::now();
  loader.start_epoch(0);
  return run_epoch(start, network, data, loader, hooks, ranks);
}

ValidationResult Evaluator::run_epoch(Clock::time_point start, SegNetwork& network, const SegDataset& data, Loader& loader,
                                      const EvaluatorHooks& hooks, Communicator& ranks) const {
  const NoGrad no_grad;
  ValidationRun run(class_names_, options_, network, data, loader, hooks, ranks);
  for (int64_t round = 0; round < loader.rounds(); ++round) run.round(round);
  ValidationResult result = run.finish();
  result.seconds = ms_since(start) / 1e3;
  run.report_images();
  return result;
}

// A validation batch at once would fill gigabytes, whose pages have to be cleared.
int64_t images_at_once(int64_t images, int64_t pixels, Device device) {
  if (device != Device::cpu()) return images;
  constexpr int64_t kPixelsPerThread = int64_t(1) << 20;
  const int64_t threads = compute_threads(), most = std::max<int64_t>(threads * kPixelsPerThread / pixels, 1);
  // What follows the network goes image by image: as many for each thread.
  return std::min(most > threads ? most / threads * threads : most, images);
}

}  // namespace tessera
