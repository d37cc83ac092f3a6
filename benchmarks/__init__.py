"""How fast charlstm is next to PyTorch, Keras, Haiku and Flax on the same work, and how near to what a machine can do.

python -m benchmarks            tables by two readings, and every raw second as JSON
python -m benchmarks.summary    both readings side by side, from that JSON
python -m benchmarks.sweep      how time and memory grow with T, B, H and L
"""
