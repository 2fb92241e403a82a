# The image of `api` and `worker` in compose.yaml, and of anything else that `chat-system` can do:
#
#     docker build -t chat-system .
#     docker run --rm chat-system --help
#
# It runs as no one in particular and writes nothing outside /tmp and, in embedded mode, /data.

FROM python:3.13-slim AS build

WORKDIR /build
# Without pip: nothing is installed into the finished image.
RUN python -m venv --without-pip /opt/chat-system
COPY requirements/stack.txt requirements/
RUN pip --python /opt/chat-system/bin/python --no-cache-dir --disable-pip-version-check \
        install --require-hashes --no-deps -r requirements/stack.txt
COPY pyproject.toml LICENSE ./
COPY src src
RUN pip --python /opt/chat-system/bin/python --no-cache-dir --disable-pip-version-check \
        install --no-build-isolation --no-deps .

FROM python:3.13-slim

RUN useradd --system --uid 10001 --home-dir /data --create-home --shell /usr/sbin/nologin chat
COPY --from=build /opt/chat-system /opt/chat-system

# In a container, loopback is nobody's. The program still asks for an admin key, or for CHAT_ALLOW_OPEN=1.
ENV PATH=/opt/chat-system/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    CHAT_HOST=0.0.0.0 \
    CHAT_LOG_FORMAT=json

USER 10001
WORKDIR /data
EXPOSE 8080
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --retries=3 \
    CMD ["python", "-m", "chat_system.web.probe", "http://127.0.0.1:8080/health/live"]
ENTRYPOINT ["chat-system"]
CMD ["serve"]
