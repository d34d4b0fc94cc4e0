"""What an evaluation is made of: its settings, the parts that it has finished, the figures that it ends in."""
