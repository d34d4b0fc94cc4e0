"""Networks whose blocks are ordinary differential equations: how they are solved, differentiated and watched.

`solver.Solver` says how a block is solved, `flow.Flow` is a layer that solves one, `skew` holds the block of the
stabilised networks, `exact` the gradient that follows every step size, `views` another solver for a trained network.
"""
