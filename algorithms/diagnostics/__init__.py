"""What is measured on a model, an attack or a training: functions of tensors, no plug-ins."""
