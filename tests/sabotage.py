"""One-line sabotages of the code, each of which a test must notice: ``python tests/sabotage.py [WORD]``.

Works on a copy of the tree. Prints the sabotages that survive, and exits with their number.
"""

import multiprocessing
import os
import shutil
import sys
import tempfile
from pathlib import Path

import pytest
import timm  # noqa: F401 - imported once, for all the processes that are forked from here

ROOT = Path(__file__).parents[1]
KNOWN, NUMERICS, ROWS = (
    "tests/known/test_diagnostics.py",
    "tests/references/test_numerics.py",
    "tests/references/test_rows.py",
)
LAWS, STORE, CHANGES = (
    "tests/laws/test_diagnostic_laws.py",
    "tests/end_to_end/test_store.py",
    "tests/references/test_changes.py",
)
MOMENTS, SUBJECTS = "tests/properties/test_moments.py", "tests/laws/test_subject_laws.py"
STUDY, LESION, TOKENS = (
    "tests/references/test_study.py",
    "tests/known/test_lesion.py",
    "tests/known/test_token_keep.py",
)
NAMES, HOSTILE, LAYOUTS, DAMAGED = (
    "tests/known/test_images_names.py",
    "tests/known/test_images_hostile.py",
    "tests/references/test_images_layouts.py",
    "tests/properties/test_images_damaged.py",
)
SPLITS, SAMPLING = "tests/known/test_images_splits.py", "tests/known/test_images_sampling.py"
LANCZOS, WEIGHTS, MERGE, FINDINGS = (
    "tests/known/test_lanczos.py",
    "tests/known/test_weight_displacement.py",
    "tests/references/test_token_merge.py",
    "tests/known/test_findings.py",
)
HELD, SPOILED, WORKERS, TRAINING, COMMANDS = (
    "tests/properties/test_folders_held.py",
    "tests/properties/test_files_damaged.py",
    "tests/laws/test_worker_laws.py",
    "tests/laws/test_training.py",
    "tests/end_to_end/test_command_line.py",
)
CONTRAST = "tests/references/test_contrast.py"
BENCH = "tests/known/test_bench_rounds.py"
BETTER = "tests/laws/test_improvement.py"
RIDGE = "tests/references/test_ridge.py"
COMPARISON = "tests/known/test_report_compare.py"
ALARMS, LABS, TRIALS = (
    "tests/known/test_false_alarms.py",
    "tests/laws/test_lab_laws.py",
    "tests/known/test_lab_numbers.py",
)

CERTIFICATE, CONE, PROGRAMS, BLOCKS, GATES = (
    "tests/known/test_convex_certificate.py",
    "tests/known/test_cone.py",
    "tests/references/test_convex_programs.py",
    "tests/laws/test_convex_block_laws.py",
    "tests/references/test_convex_relu.py",
)
SOLVERS, ESTIMATORS = "tests/laws/test_convex_solver_laws.py", "tests/references/test_convex_estimators.py"
HEAD_RUNS, HEAD_KIND, FEATURES = (
    "tests/known/test_head_runs.py",
    "tests/end_to_end/test_head_kind.py",
    "tests/known/test_features.py",
)
CROSSED, GRID = "tests/known/test_crossed.py", "tests/laws/test_trials.py"
STARTS, GRAMMAR = "tests/laws/test_training_start.py", "tests/laws/test_training_grammar.py"
TRAINING, SCHEDULE, AUGMENTED = (
    "tests/laws/test_training.py",
    "tests/known/test_schedule.py",
    "tests/known/test_augmentation.py",
)
MASKED, SHALLOW, PLANTED = (
    "tests/known/test_masked_theory.py",
    "tests/known/test_shallow_theory.py",
    "tests/laws/test_planted_laws.py",
)
CHECKPOINTS, WRAPPERS, DAMAGE, FLAGS = (
    "tests/known/test_checkpoints.py",
    "tests/known/test_wrappers.py",
    "tests/properties/test_checkpoint_damage.py",
    "tests/known/test_model_flags.py",
)
INPUTS, FOLDERS, NAMED, MUTATED = (
    "tests/known/test_input.py",
    "tests/known/test_folders.py",
    "tests/known/test_classes.py",
    "tests/properties/test_folders_damaged.py",
)

FOUND, OWN, PRECISION = (
    "tests/known/test_found_layout.py",
    "tests/known/test_own_forward.py",
    "tests/known/test_precision.py",
)

SABOTAGES = [
    ("models/weight_sets.py", "raw if average is False or not averaged else averaged", "raw or averaged", CHECKPOINTS),
    ("models/weight_sets.py", "if any(not _same(left[0], other) for other in left[1:]):", "if False:", CHECKPOINTS),
    ("models/weight_sets.py", "not _OPTIMISERS.search(key)", "True", CHECKPOINTS),
    ("models/weight_sets.py", 'self.prefix.endswith("module.") and counted', "counted", CHECKPOINTS),
    ("models/sized.py", "low + number if rest == 0 and low + number > 0", "low if rest == 0", CHECKPOINTS),
    ("models/sized.py", "isqrt(max(there - prefix, 0))", "isqrt(there)", CHECKPOINTS),
    ("models/made.py", "{**said.options, **named.options}", "named.options", CHECKPOINTS),
    ("models/made.py", "MadeModel(copy_module(module), name", "MadeModel(module, name", CHECKPOINTS),
    ("models/weight_file.py", "weights_only=True, mmap", "weights_only=False, mmap", DAMAGE),
    ("models/checkpoint.py", "isinstance(value, bool) and kind is not bool", "False", DAMAGE),
    ("models/unwrapped.py", "len(handed) == 1 and torch.equal(handed[0], shown)", "True", WRAPPERS),
    ("models/unwrapped.py", "torch.equal(found, own)", "True", WRAPPERS),
    ("models/unwrapped.py", "if len(found) != 1:", "if not found:", WRAPPERS),
    ("cli/model.py", "int(found[1]), int(found[2] or found[1])", "int(found[2] or found[1]), int(found[1])", FLAGS),
    ("models/bands.py", "min(_along(one[:BANDS], rows", "max(_along(one[:BANDS], rows", FOUND),
    ("models/bands.py", "np.where(cells < 0, 1 / BANDS, ", "np.where(cells < 0, 1, ", FOUND),
    ("models/found_layout.py", "else torch.zeros_like(values)", "else values[:0]", FOUND),
    ("models/found_layout.py", "spoiled |= not bool(after.isfinite().all())", "pass", FOUND),
    ("models/found_layout.py", "_SURE = 0.5", "_SURE = -1.0", FOUND),
    ("models/found_layout.py", "(Layout.CHANNELS_LAST, 3, (one, two))", "(Layout.CHANNELS_LAST, 3, (two, one))", FOUND),
    ("models/found_layout.py", "(len(rows) // 2, len(rows)) if extra", "() if extra", FOUND),
    ("models/found_layout.py", "layout if extra < grid[1] else None", "layout", FOUND),
    ("models/found_layout.py", "or not alike[0].explains", "", FOUND),
    ("models/following.py", "if not _both_same(left.get(one), entered.get(two))", "if False", FOUND),
    ("models/following.py", "stream.with_values(stream.values.clone())", "stream", FOUND),
    ("models/following.py", "images_differ(stream) and unlike(", "unlike(", FOUND),
    ("models/blocks.py", "self.passed_by |= images_differ(", "self.passed_by |= False and images_differ(", FOUND),
    ("models/named.py", "and same_map(stream, last[1])", "", FOUND),
    ("models/named.py", "if odd is not None:", "if False:", FOUND),
    ("models/feed.py", "images.to(like.device, like.dtype, copy=True)", "images.to(like.device, like.dtype)", OWN),
    (
        "models/feed.py",
        "(layers, module.parameters(), module.buffers())",
        "(module.parameters(), module.buffers())",
        PRECISION,
    ),
    ("models/own_forward.py", "if walked[name] < count", "if False", OWN),
    ("models/own_forward.py", "if apart <= allowed_gap(module)", "if apart <= 1e9 * allowed_gap(module)", OWN),
    ("models/own_forward.py", "if rows.shape[0] != count:", "if False:", OWN),
    ("models/alone.py", "if apart <= max(", "if apart <= 1e9 * max(", OWN),
    ("models/own_forward.py", "for method in _replaced_methods(part):", "for method in ():", OWN),
    ("models/anatomy.py", "    if why:\n", "    if why and False:\n", OWN),
    ("models/subject.py", "if changed := _find_written(subject, images):", "if changed := None:", OWN),
    ("interventions/bypass.py", "one.clone() if isinstance(one, Tensor)", "one if isinstance(one, Tensor)", OWN),
    ("models/state.py", "        self.table[name] = self.tensor\n", "", OWN),
    ("models/classes.py", "(values.sum(1) - 1).abs() <= rounding", "(values.sum(1) - 1).abs() < 0", OWN),
    ("engine/reading/finite.py", "wrong &= weight != -torch.inf", "pass", OWN),
    ("engine/reading/failure.py", "if not alone and not _fails(subject, pixels):", "if False:", OWN),
    ("engine/curvature/hessian.py", "return batch if bool(finite.all()) else batch.take(finite)", "return batch", OWN),
    ("engine/reading/operations.py", "self.found.total += formula", "self.found.total = formula", OWN),
    ("findings/checkup.py", "if not runs:", "if True:", OWN),
    ("numerics/precision.py", "values.dtype in (torch.float16, torch.bfloat16)", "False", PRECISION),
    (
        "engine/curvature/hessian.py",
        "if quantised := quantised_layers(subject.module):",
        "if quantised := ():",
        PRECISION,
    ),
    ("numerics/moments.py", "delta, count * share", "delta, share", MOMENTS),
    ("numerics/moments.py", "to_float64(more) / total", "more / total", MOMENTS),
    ("numerics/moments.py", "self.squares / (count - 1) / count", "self.squares / count / count", NUMERICS),
    ("numerics/attention.py", "- count) / (count * (count - 1))", ") / (count * (count - 1))", NUMERICS),
    ("numerics/attention.py", "1 - mass + 1e-6", "mass - 1e-6", NUMERICS),
    ("numerics/fourier.py", "rows + columns", "rows - columns", NUMERICS),
    ("numerics/fourier.py", "side // 2 + 1", "side // 2", NUMERICS),
    ("numerics/tokens.py", "(cells - 1) * channels", "cells * channels", NUMERICS),
    ("numerics/tokens.py", "+ 2 * squares[2]", "+ squares[2]", NUMERICS),
    ("engine/reading/activation.py", "self.query_tokens >= self.prefix", "self.query_tokens >= 0", ROWS),
    ("engine/reading/activation.py", "cell % self.grid[1]", "cell % self.grid[0] * 0", ROWS),
    ("engine/reading/activation.py", "scores.add_(a.bias)", "scores", ROWS),
    ("engine/reading/diagnostic.py", "- observations[before, quantity]", "", CHANGES),
    ("engine/reading/fold.py", "self.merge(_means_of(observations))", "self", LAWS),
    ("engine/reading/shard.py", "norms[start : start + step]", "norms[:step]", LAWS),
    ("engine/plan.py", "if shard not in results", "", STORE),
    ("runs/spec.py", 'if key != "weights"', "", STORE),
    ("engine/measure.py", '"units": [place.name for place in subject.places],', "", STORE),
    ("runs/whole.py", "os.replace(file.name, path)", "os.rename(file.name, f'{path}x')", STORE),
    ("runs/whole.py", "fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)\n            path", "path", HELD),
    ("runs/hold.py", "fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)", "pass", HELD),
    ("runs/hold.py", "os.unlink(os.path.join(place, LOCK))", "pass", HELD),
    ("runs/hold.py", "os.register_at_fork(after_in_child=_release_all)", "pass", HELD),
    ("runs/hold.py", "        sweep(Path(place))\n", "", HELD),
    ("runs/store.py", "for spec in (run.spec, *steps):", "for spec in (run.spec,):", HELD),
    ("runs/store.py", "digest(_content(files, other)) != wanted", "False", HELD),
    ("runs/store.py", 'mode="create" if new else "overwrite"', 'mode="overwrite"', HELD),
    ("runs/seal.py", "if seal != _seal(content, place):", "if False:", SPOILED),
    ("runs/seal.py", 'place.encode() + b"\\0" + content', "content", SPOILED),
    ("runs/store.py", "        check_seal(content)\n", "", SPOILED),
    ("runs/store.py", "tree.nbytes > _MOST_INFLATED * len(content)", "False", SPOILED),
    ("convex/saved.py", 'if metadata.get(_SEAL, "") not in', "if None in", SPOILED),
    ("convex/features/store.py", "facts.digests[name] != self._digest(name)", "False", SPOILED),
    ("training/state.py", "    if not whole:\n", "    if False:\n", SPOILED),
    ("training/train.py", '{"training": images.fingerprint,', '{"training": "",', TRAINING),
    ("training/question.py", "(folder / RECIPE).unlink(missing_ok=True)", "pass", TRAINING),
    ("engine/work/executor.py", "waiting.appendleft(shard)", "pass", WORKERS),
    ("engine/work/executor.py", "tries[shard] += 1", "tries.update(workers[w].shard for w in workers)", WORKERS),
    ("engine/work/crew.py", "wait([parent.sentinel])", "threading.Event().wait()", WORKERS),
    ("engine/work/crew.py", "signal.SIG_BLOCK, {signal.SIGINT}", "signal.SIG_BLOCK, set()", WORKERS),
    ("cli/error_reporting.py", "(signal.SIGTERM, signal.SIGHUP)", "(signal.SIGHUP,)", COMMANDS),
    ("cli/runs.py", "if isinstance(run, UserError):", "if False:", COMMANDS),
    ("runs/store.py", "if files.exists(target):\n                raise", "if False:\n                raise", STORE),
    ("diagnostics/attention_distance.py", "reached / mass", "reached", KNOWN),
    ("diagnostics/attention_sinks.py", "norms[:, attention.prefix :].median", "norms.median", KNOWN),
    ("diagnostics/attention_diversity.py", "/ math.log(heads)", "", KNOWN),
    ("diagnostics/attention_sparsity.py", "-self.top :", ": self.top", KNOWN),
    ("diagnostics/accuracy.py", ".square().sum(1)", ".abs().sum(1)", KNOWN),
    ("diagnostics/calibration.py", "(confidence - right)[:, None]", "(right - confidence)[:, None]", KNOWN),
    ("models/attention.py", "(self.queries * self.scale) @", "self.queries @", SUBJECTS),
    ("models/timm/vit.py", "(block.ls1, block.drop_path1)", "(block.drop_path1,)", SUBJECTS),
    ("models/window.py", "value=-1", "value=0", SUBJECTS),
    ("models/timm/input.py", "        channels = entering", "        pass", INPUTS),
    ("models/timm/input.py", "        height, width = embedded", "        height, width = 224, 224 #", INPUTS),
    ("models/torchvision/input.py", "left_out = (*_OTHER,", "left_out = (", INPUTS),
    ("models/torchvision/input.py", "transform.crop_size = [height, width]", "pass", INPUTS),
    ("models/transformers/input.py", "shape == own or _takes(module, shape)", "True", INPUTS),
    ("models/transformers/input.py", "if not type(found).__name__.startswith(named)", "if False", INPUTS),
    ("models/pixels.py", "across * height / width", "across", INPUTS),
    ("models/input.py", "if channels not in MODES", "if False", INPUTS),
    ("models/classes.py", "and 0 <= int(str(key)) < count", "", NAMED),
    ("models/classes.py", "or len(names) == count", "or True", NAMED),
    ("models/timm/library.py", "last_width(classifier) if isinstance(classifier, nn.Module) else None", "None", NAMED),
    ("models/folder.py", "if Path(name).name != name or", "if", FOLDERS),
    ("models/folder.py", "if total > numbers or len(seen) > tensors", "if False", FOLDERS),
    ("models/timm/folder.py", "if key.startswith(_PLACES)", "if False", FOLDERS),
    ("models/transformers/configuration.py", "or key in _ATTENTION", "", FOLDERS),
    ("models/transformers/configuration.py", "if tower is not None", "if False", FOLDERS),
    (
        "models/transformers/folder.py",
        "model.config.name_or_path = config.name_or_path",
        "_ = config.name_or_path",
        FOLDERS,
    ),
    ("models/transformers/folder.py", "inside = [key for key in over if _part_of(model, key)]", "inside = []", MUTATED),
    ("engine/reading/diagnostic.py", "else values - before[key]", "else values", STUDY),
    (
        "interventions/studies/loss_landscape.py",
        "permutation(len(images))[:count]",
        "permutation(len(images))[-count:]",
        "tests/references/test_landscape.py",
    ),
    ("engine/studying.py", "if hand.block != block:", "if True:", STUDY),
    ("engine/studying.py", "len(result.silent) == len(self.blocks[shard.block]) + 1", "True", STUDY),
    ("engine/question.py", "if held.spec.address == spec.address:", "if True:", STORE),
    ("engine/question.py", "plan.store.write(run, answer.steps, answer.beside)", "pass", STORE),
    ("measurement/crossed.py", "over_seeds if seeds > 1 else 0.0", "0.0", CROSSED),
    ("measurement/crossed.py", "freedom = (a + b) ** 2", "freedom = 1e9 * (a + b) ** 2", CROSSED),
    (
        "training/trial_results.py",
        "best = max(trials.right, key=",
        "best = min(trials.right, key=",
        CROSSED,
    ),
    (
        "training/trials.py",
        "tuple(replace(recipe, seed=seed) for recipe, seed in each)",
        "tuple(one for one, _ in each)",
        GRID,
    ),
    ("training/trials.py", "work.refuse_begun(plan.resume)", "pass", GRID),
    ("engine/study.py", "for walk in range(1, len(settings) + 1)", "for walk in range(len(settings))", STUDY),
    (
        "engine/reading/together.py",
        "anatomies[walk].units[position] for",
        "anatomies[walk].units[position].place for",
        STUDY,
    ),
    ("engine/work/executor.py", '"_inheriting", False)', '"_inherits", False)', LAWS),
    ("interventions/bypass.py", "stream.values + self.mean", "self.mean", LESION),
    ("interventions/token_ranking.py", "return -self.ranking", "return self.ranking", TOKENS),
    ("interventions/token_merge.py", ".log()[:, None, None, None]", "[:, None, None, None]", MERGE),
    ("numerics/lanczos.py", "corrections, alpha=-1)", "corrections, alpha=0)", LANCZOS),
    ("numerics/direction.py", "weights.flatten(1), 1).reshape", "weights.flatten(1), 0).reshape", WEIGHTS),
    ("findings/reading.py", "change_of(Estimate(*estimate))", "Estimate(*estimate)", FINDINGS),
    ("findings/reading.py", "test(one, rate / len(entries))", "test(one, rate)", FINDINGS),
    ("findings/reading.py", 'lesion.get("layers") == [layer] and', "True and", FINDINGS),
    ("findings/checkup.py", "rate_of(sum(finding.is_test for finding in fitting))", "FALSE_ALARMS", FINDINGS),
    ("measurement/exact.py", "self.count, rate / 2) for one", "self.count, 4 * rate) for one", ALARMS),
    ("measurement/exact.py", "math.log(2 / rate) / self.count", "math.log(0.1 / rate) / self.count", ALARMS),
    ("measurement/exact.py", "share = rate / len((*self.first, *self.second))", "share = rate", ALARMS),
    ("measurement/estimate.py", "SKEWNESS = 3.0", "SKEWNESS = 0.0", ALARMS),
    ("labs/shallow/needed.py", "reached[:, :, drawn]", "reached[:, :, drawn * 0]", TRIALS),
    ("labs/shallow/needed.py", "width / np.sqrt(12)", "width * 0", ALARMS),
    ("labs/experiment.py", "rate_of(tests)", "FALSE_ALARMS", LABS),
    ("findings/low_frequencies_matter.py", "if at > 0.5", "if at >= 0.5", FINDINGS),
    ("convex/certificate.py", "min(problem.loss.largest_scale, feasible)", "problem.loss.largest_scale", CERTIFICATE),
    ("convex/relu_norm.py", "if above <= reached * (1 + 1e-9) else", "if True else", GATES),
    ("convex/certificate.py", "max(each.bound for each in found)", "min(each.bound for each in found)", PROGRAMS),
    ("convex/certificate.py", "precise.beta * heads.nuclear_norm", "precise.beta * heads.nuclear_norm / 2", PROGRAMS),
    ("convex/loss.py", "scale * spread + float(entr(scale)) * others", "scale * spread", PROGRAMS),
    ("convex/loss.py", "/ (2 * self.images)", "/ self.images", PROGRAMS),
    ("convex/loss.py", "0.5 * float(self.weights.max())", "0.05 * float(self.weights.max())", BLOCKS),
    ("convex/cone.py", "sides.amin(1) >= -ROUNDING", "sides.amin(1) >= -1", CONE),
    ("convex/cone.py", "(maps[cone, 0].numpy(), -maps[cone, 0].numpy())", "(maps[cone, 0].numpy(),)", CONE),
    ("convex/cone.py", "nnls(-normals.T, point)", "nnls(normals.T, point)", CONE),
    ("convex/relu_norm.py", "max(float(values[:1].sum()), sure or 0.0)", "float(values[:1].sum())", GATES),
    ("convex/features/store.py", "if part.digest == digest(_read_rows(file, part, shape))", "if True", FEATURES),
    ("convex/features/projection.py", "dtype=torch.float32).contiguous()", "dtype=torch.float32)", FEATURES),
    ("convex/features/work.py", "rows[places] = tokens", "rows[: len(places)] = tokens", FEATURES),
    ("convex/features/extract.py", 'or (store.path / "partial").exists()', "", FEATURES),
    ("convex/solvers/greedy.py", "if not search.certain and", "if False and", SOLVERS),
    ("convex/runs/settings.py", 'if "grid" in block.options():', "if False:", HEAD_RUNS),
    ("convex/block.py", "return (gradient * tokens).sum(2)", "return gradient.sum(2)", HEAD_RUNS),
    ("convex/runs/compare.py", "if BLOCKS[kind].mixes is mixes]", "if BLOCKS[kind].mixes]", HEAD_KIND),
    ("convex/module.py", "factors.right / len(trained.members)", "factors.right", ESTIMATORS),
    ("training/schedule.py", "(step + 1) / warmup", "step / warmup", SCHEDULE),
    ("training/schedule.py", "steps - 1 - warmup", "steps - warmup", SCHEDULE),
    ("training/batches.py", "[self.seed, epoch]", "[self.seed]", AUGMENTED),
    ("training/batches.py", "if epoch == start // self.steps_per_epoch else 0", "if False else 0", TRAINING),
    ("training/loop.py", "self.optimizer.load_state_dict(dict(state.optimizer))", "pass", TRAINING),
    ("training/loop.py", "self.average.load_state_dict(state.average)", "pass", TRAINING),
    ("training/loop.py", "if not bool(reduced.isfinite().all()):", "if False:", TRAINING),
    ("training/augmentation.py", "* (1 - smoothing) + smoothing / classes", "", TRAINING),
    ("training/augmentation.py", "if self.recipe.flip else pixels", "", TRAINING),
    ("training/hooks/keep_zeros.py", "parameter.mul_(mask.to(parameter.device))", "pass", GRAMMAR),
    ("training/objectives/distillation.py", "self.temperature**2 * ", "", GRAMMAR),
    ("training/loop.py", "self.best = None if state.best is None else dict(state.best)", "pass", GRAMMAR),
    ("training/parameters.py", "            part.training = False", "            pass", STARTS),
    ("models/start.py", "state = module.state_dict() if size == before", "state = module.state_dict() if True", STARTS),
    ("labs/masked/theory.py", "1 - masked_share ** (size - 1)", "1 - masked_share**size", MASKED),
    ("labs/shallow/theory.py", "(own + 1 - share)", "(own + 1)", SHALLOW),
    ("labs/shallow/theory.py", "relevant * max(relevant - sigma - noise, 0.0), 2", "relevant, 2", SHALLOW),
    ("labs/fit.py", "np.sqrt((weights**2) @ (grain**2))", "np.zeros(2)", TRIALS),
    ("labs/shallow/needed.py", "if after == 0:", "if after < 0:", TRIALS),
    ("labs/shallow/planting.py", "np.isin(images.labels, chosen)", "images.labels >= 0", PLANTED),
    ("data/class_names.py", "len(set(found.places)) == len(ours)", "True", NAMES),
    ("data/imagenet.py", "agreeing >= ALIKE * len(numbers)", "True", NAMES),
    ("data/label.py", "if by_text != by_number:", "if False:", NAMES),
    ("data/label.py", 'numbering="sorted" if words else "own"', 'numbering="own"', NAMES),
    ("data/sampling.py", " / sizes[classes]", "", SAMPLING),
    ("data/sampling.py", " + generator.random(len(sizes))[classes]", "", SAMPLING),
    ("data/splits.py", "if count > 1", "if count > 2", SPLITS),
    ("data/splits.py", "any(map(names_split, names)) or", "False or", SPLITS),
    ("cli/request.py", "if error.splits is None:", "if False:", SPLITS),
    ("data/decode.py", "image.format not in SHOWN_FORMATS", "False", HOSTILE),
    ("data/decode.py", "if width * height > decoding.max_pixels:", "if False:", HOSTILE),
    ("data/decode.py", "0 < most <= DARKEST", "0 < most <= 255", HOSTILE),
    ("data/files.py", "not stat.S_ISREG(state.st_mode)", "stat.S_ISFIFO(state.st_mode)", HOSTILE),
    ("data/files.py", "full.startswith(base.rstrip(os.sep) + os.sep)", "full.startswith(base)", HOSTILE),
    ("data/layout.py", "None if Path(path).is_absolute() else inside", "inside", HOSTILE),
    ("measurement/errors.py", "printable(said)", "said", HOSTILE),
    ("data/webdataset.py", "_check_end(path, archive.offset, length)", "pass", DAMAGED),
    ("data/npz.py", "if file.tell() + size != info.file_size:", "if False:", DAMAGED),
    ("data/arrow.py", "table.select([column]).validate(full=True)", "pass", DAMAGED),
    ("data/items.py", "any(self.content(place) != self.content(place) for place in places)", "False", LAYOUTS),
    ("data/items.py", "all(values[place] == label for place, label in seen.items())", "True", LAYOUTS),
    ("data/torch_dataset.py", "if kind is SubsetRandomSampler else None", "if False else None", LAYOUTS),
    ("data/metadata.py", "if any(row.split for row in rows):", "if False:", LAYOUTS),
    ("data/table.py", "if bounded and inside(root, path) is None:", "if False:", LAYOUTS),
    ("engine/reading/activation.py", "== own) & before)", "== own))", "tests/known/test_mistakes.py"),
    ("engine/reading/diagnostic.py", "values if key[1] in diagnostic.places else values -", "values -", CONTRAST),
    ("engine/reading/jackknife.py", "(len(changes) - 1) * several.var", "several.var", CONTRAST),
    ("engine/reading/jackknife.py", "from_end[1:]", "from_end", CONTRAST),
    ("engine/contrasted.py", "drop_quantities(found, diagnostic.nonlinear)", "found", CONTRAST),
    ("engine/contrasting.py", "_plan(subject.places) == _plan(self.subject.places)", "True", CONTRAST),
    (
        "engine/contrast.py",
        "fit_images(subject, images)) for subject in subjects",
        "fitted(before, images)) for subject in subjects",
        CONTRAST,
    ),
    (
        "engine/study.py",
        "drop_quantities(diagnostic.finish(change, scene), diagnostic.nonlinear)",
        "diagnostic.finish(change, scene)",
        CONTRAST,
    ),
    ("measurement/exact.py", "min(1.0, 2 * float(bdtr(", "min(1.0, float(bdtr(", ALARMS),
    (
        "measurement/exact.py",
        "allowed = (gained - lost) / count, (rate - spent) / 2",
        "allowed = (gained - lost) / count, rate",
        ALARMS,
    ),
    ("measurement/paired.py", "(after & ~before).sum()", "after.sum()", COMPARISON),
    ("measurement/paired.py", "apart = apart[np.isfinite(apart)]", "pass", COMPARISON),
    (
        "report/pairing.py",
        'any((one[name].values != two[name].values).any() for name in ("picture", "label"))',
        "False",
        COMPARISON,
    ),
    ("report/pairing.py", "if seen[0] != seen[1]:", "if False:", COMPARISON),
    ("report/comparison.py", "if known is None else known", "if True else known", COMPARISON),
    ("deploy/timing.py", "one.by_round / other.by_round", "one.by_round / other.median.value", BENCH),
    ("measurement/median.py", "beyond <= rate", "beyond <= 2 * rate", "tests/known/test_median.py"),
    ("deploy/tally.py", "return found.total / 2", "return float(found.total)", "tests/known/test_bench_costs.py"),
    (
        "deploy/bench_claims.py",
        "rate = rate_of(len(places))",
        "rate = rate_of(1)",
        "tests/known/test_bench_claims.py",
    ),
    ("improvement/goal.py", "return -change.mean <= max(", "return change.mean <= max(", BETTER),
    ("improvement/splits.py", "np.setdiff1d(np.arange(len(images)),", "np.intersect1d(np.arange(len(images)),", BETTER),
    ("improvement/proof.py", "return above(self.change, -self.give_up, 2 * RATE)", "return Verdict.HOLDS", BETTER),
    ("models/compact.py", "_drop(compacted.module, used)", "pass", "tests/laws/test_compaction_laws.py"),
    ("numerics/ridge.py", "scatter.mean[removed] - scatter.mean[kept] @ weight", "scatter.mean[removed]", RIDGE),
]


def survives(folder: Path, file: str, old: str, new: str, test: str) -> bool:
    """Whether the test passes on a tree with this sabotage."""
    target = folder / "src" / "vitscope" / file
    honest = target.read_text()
    if old not in honest:
        raise SystemExit(f"{file} no longer holds {old!r}: mend the list of sabotages.")
    target.write_text(honest.replace(old, new, 1))
    process = multiprocessing.get_context("fork").Process(target=tested, args=(folder, test))
    process.start()
    process.join()
    target.write_text(honest)
    return process.exitcode == 0


def tested(folder: Path, test: str) -> None:
    """Run the test on that tree, in a process that begins with the libraries imported."""
    os.chdir(folder)
    sys.path.insert(0, str(folder / "src"))
    os.environ |= {"PYTHONPATH": str(folder / "src"), "PYTHONDONTWRITEBYTECODE": "1", "OMP_NUM_THREADS": "1"}
    quiet = os.open(os.devnull, os.O_WRONLY)
    os.dup2(quiet, 1)
    os.dup2(quiet, 2)
    os._exit(pytest.main(["-x", "-q", "-p", "no:cacheprovider", test]))


def main() -> None:
    """Try every sabotage whose file or text holds the word given, or all."""
    word = sys.argv[1] if len(sys.argv) > 1 else ""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for part in ("src", "tests"):
            shutil.copytree(ROOT / part, folder / part, ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copy(ROOT / "pyproject.toml", folder)
        chosen = [sabotage for sabotage in SABOTAGES if word in "".join(sabotage)]
        survivors = []
        for sabotage in chosen:
            alive = survives(folder, *sabotage)
            print("SURVIVES" if alive else "dies    ", *sabotage[:3], sep="  ", flush=True)
            survivors += [sabotage] if alive else []
    print(f"{len(survivors)} of {len(chosen)} survive")
    sys.exit(len(survivors))


if __name__ == "__main__":
    main()
