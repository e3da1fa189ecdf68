"""Features, training, ONNX export, evaluation and drift: functions of tables and arrays, no Dagster."""
