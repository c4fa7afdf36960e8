# mypy: disable-error-code="import-not-found,import-untyped"
"""timm: its folder data set and loader feed a PyTorch network, as timm's inference script does.

tf_efficientnet_lite2 at 160 pixels with random weights: they decide the answers, not the speed. This is the network
whose weights mribatch's first default model began with.

Documentation followed:
    https://huggingface.co/docs/timm/quickstart
    https://huggingface.co/docs/timm/reference/data (create_dataset, create_loader, resolve_data_config)
    https://huggingface.co/docs/timm/training_script (the inference script)
"""

import timm
import timm.data
import torch

from benchmarks.race.job import Job, Stage, parse_job, write_result

BATCH_SIZE = 32
CLASSES = 4


def classify(job: Job) -> None:
    """Classify what the loader gives, write the classes at the end."""
    torch.set_num_threads(job.threads)
    model = timm.create_model("tf_efficientnet_lite2", pretrained=False, num_classes=CLASSES).eval()
    config = timm.data.resolve_data_config({"input_size": (3, job.pixels, job.pixels)}, model=model)
    dataset = timm.data.create_dataset("", root=str(job.data))
    loader = timm.data.create_loader(
        dataset,
        batch_size=BATCH_SIZE,
        use_prefetcher=False,
        num_workers=job.threads,
        device=torch.device("cpu"),
        input_size=config["input_size"],
        interpolation=config["interpolation"],
        mean=config["mean"],
        std=config["std"],
        crop_pct=config["crop_pct"],
    )
    stage, classes = Stage(len(dataset)), list[int]()
    with torch.inference_mode():
        for pixels, _ in loader:
            classes.extend(model(pixels).softmax(-1).argmax(-1).tolist())
            stage.reach(len(classes))
    paths = [job.data / name for name in dataset.filenames()]
    write_result(job, zip(paths, classes, strict=True), [stage])


if __name__ == "__main__":
    classify(parse_job(__doc__))
