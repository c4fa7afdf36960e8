# mribatch with TensorRT and DALI, on NVIDIA's TensorRT image. Build it in the checkout:
#   docker build -f docker/gpu.Dockerfile -t mribatch-gpu .
#   docker run --rm --gpus all -v mribatch-cache:/cache -v "$PWD/scans:/data:ro" -v "$PWD/results:/results" \
#       mribatch-gpu classify /data --out /results/run
#
# TensorRT is the image's own; its libraries are several gigabytes, and not on PyPI. Another image is another
# --build-arg TENSORRT_IMAGE=…; the build ends where its version is not one that mribatch knows. CUDA_EXTRA is the
# extra whose other packages are installed: gpu-cu13 for images with CUDA 13, gpu-cu12 for those with CUDA 12.
ARG TENSORRT_IMAGE=nvcr.io/nvidia/tensorrt:25.10-py3
FROM ${TENSORRT_IMAGE}
ARG CUDA_EXTRA=gpu-cu13
WORKDIR /source
COPY . .
RUN python3 docker/without_tensorrt.py setup.cfg "${CUDA_EXTRA}" > /tmp/requirements.txt \
    && python3 -m venv --system-site-packages /opt/mribatch \
    && /opt/mribatch/bin/pip install --no-cache-dir --disable-pip-version-check \
        --requirement /tmp/requirements.txt '.[dicom,xlsx]' \
    && rm /tmp/requirements.txt
# Engines are built on the GPU that they are for, when the container first runs: mount a volume at the cache, so that
# they are built once. It must belong to the user, who alone may write there.
ENV PATH=/opt/mribatch/bin:$PATH \
    MRIBATCH_CACHE=/cache \
    PYTHONDONTWRITEBYTECODE=1
RUN useradd --create-home --non-unique --uid 1000 mribatch \
    && install --directory --owner=mribatch --mode=0700 /cache
USER 1000
VOLUME /cache
WORKDIR /home/mribatch
ENTRYPOINT ["mribatch"]
CMD ["--help"]
