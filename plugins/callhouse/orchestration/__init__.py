"""What the DAG files call. Airflow lives here and in `dags/` only."""
