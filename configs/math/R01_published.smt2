; R01: what was wrong in the published calculus, each with a witness. Every answer is sat: the equation has a counterexample.
(set-logic ALL)
(push 1) ; expect sat: "contract and requirements intersect" does not mean that all required capabilities are offered
(declare-const required (_ BitVec 4)) (declare-const offered (_ BitVec 4))
(assert (and (not (= (bvand required offered) #x0)) (not (= (bvand required (bvnot offered)) #x0))))
(check-sat)
(pop 1)
(push 1) ; expect sat: "accuracy of a chain is at least the least accuracy" fails already for two steps of 0.9
(declare-const both Real) (declare-const first Real) (declare-const second Real) (declare-const none Real)
(assert (and (>= both 0.0) (>= first 0.0) (>= second 0.0) (>= none 0.0) (= (+ both first second none) 1.0)))
(assert (and (>= (+ both first) 0.9) (>= (+ both second) 0.9) (< both 0.9)))
(check-sat)
(pop 1)
(push 1) ; expect sat: "p95 of a sum is at most the sum of the p95s": both 0, yet the sum is above 0 in more than 5 %
(declare-const q00 Real) (declare-const q01 Real) (declare-const q10 Real) (declare-const q11 Real)
(assert (and (>= q00 0.0) (>= q01 0.0) (>= q10 0.0) (>= q11 0.0) (= (+ q00 q01 q10 q11) 1.0)))
(assert (and (<= (+ q10 q11) 0.05) (<= (+ q01 q11) 0.05) (> (- 1.0 q00) 0.05)))
(check-sat)
(pop 1)
(push 1) ; expect sat: "the service's maximum is at least the requested one" lets a call take longer than was asked for
(declare-const promised Int) (declare-const asked Int) (declare-const took Int)
(assert (and (>= promised asked) (<= took promised) (> took asked)))
(check-sat)
(pop 1)
(push 1) ; expect sat: "local or encrypted" does not mean that the service is cleared for the data
(declare-const local Bool) (declare-const encrypted Bool) (declare-const cleared Bool)
(assert (and (or local encrypted) (not cleared)))
(check-sat)
(pop 1)
