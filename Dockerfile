# Two images from one recipe, because Superset and Airflow need different SQLAlchemy versions.
FROM python:3.11-slim-bookworm AS base
RUN useradd --uid 10001 --create-home --shell /usr/sbin/nologin callhouse \
    && install --directory --owner=callhouse --group=callhouse --mode=0750 /var/lib/callhouse \
        /var/lib/callhouse/logs \
    && install --directory --owner=callhouse --group=callhouse --mode=0700 \
        /var/lib/callhouse/logs/trail
WORKDIR /opt/callhouse
ENV PYTHONUNBUFFERED=1 CALLHOUSE_HOME=/var/lib/callhouse CALLHOUSE_POSTGRES=system
VOLUME /var/lib/callhouse

FROM base AS pipeline
COPY requirements/ requirements/
RUN requirements/install pipeline && rm -rf ~/.cache .venv/uv
COPY plugins/ plugins/
COPY superset/ superset/
COPY dbt_project/ dbt_project/
COPY expectations/ expectations/
COPY dags/ dags/
ENV PATH=/opt/callhouse/.venv/pipeline/bin:$PATH
USER callhouse

FROM base AS superset
COPY requirements/ requirements/
RUN requirements/install superset && rm -rf ~/.cache .venv/uv
COPY plugins/ plugins/
COPY superset/ superset/
ENV PATH=/opt/callhouse/.venv/superset/bin:$PATH
USER callhouse
