# mribatch on the CPU, in a slim image. Build it in the checkout:
#   docker build -f docker/cpu.Dockerfile -t mribatch .
#   docker run --rm -v "$PWD/scans:/data:ro" -v "$PWD/results:/results" mribatch classify /data --out /results/run
FROM python:3.12-slim-bookworm AS build
WORKDIR /source
COPY . .
RUN python -m venv /opt/mribatch \
    && /opt/mribatch/bin/pip install --no-cache-dir --disable-pip-version-check '.[dicom,xlsx]'

FROM python:3.12-slim-bookworm
COPY --from=build /opt/mribatch /opt/mribatch
# Measurements of this machine are kept in the cache: mount a volume there, so that they outlive the container.
ENV PATH=/opt/mribatch/bin:$PATH \
    MRIBATCH_CACHE=/cache \
    PYTHONDONTWRITEBYTECODE=1
RUN useradd --create-home --uid 1000 mribatch \
    && install --directory --owner=mribatch --mode=0700 /cache
USER 1000
VOLUME /cache
WORKDIR /home/mribatch
ENTRYPOINT ["mribatch"]
CMD ["--help"]
