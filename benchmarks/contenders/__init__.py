"""The product's stages and their baselines, each as a module for `benchmarks.worker`."""
