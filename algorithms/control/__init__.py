"""Training as optimal control: states, co-states, a layer's Hamiltonian and the sets its maximiser is kept in.

Paper: "Adversarially Robust Neural Networks via Optimal Control: Bridging Robustness with Lyapunov Stability"
(anonymous authors). docs/control.md says what of it holds and what does not.
"""
