"""Pipelines on this machine without a node, under a memory cap.

Layering: python_steps (functions over batches) <- derived (sources that steps compute), inputs
(data of the caller as files) <- runner (runs plans with EM-√) <- jobs; session is the façade.
"""
