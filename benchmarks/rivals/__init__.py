"""Other ways from the queue into a table, each as its own documentation suggests it.

Each module has `load`, which takes messages from the queue into the table and returns their number,
and runs as a program until the queue is empty. None imports the product.
"""
