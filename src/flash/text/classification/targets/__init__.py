"""What target columns mean: formats, label sets, multi-hot arrays, stratified splits."""
