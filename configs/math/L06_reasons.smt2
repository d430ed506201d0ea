; L06: reasons partition the services that are out: each has exactly one, the first gate that fails.
; code: routing.verdicts, routing.first_failure
(set-logic ALL)
(define-sort Bits () (_ BitVec 64))
(declare-const g1 Bits) (declare-const g2 Bits) (declare-const g3 Bits)
(define-fun out1 () Bits (bvnot g1))
(define-fun out2 () Bits (bvand g1 (bvnot g2)))
(define-fun out3 () Bits (bvand g1 (bvand g2 (bvnot g3))))
(define-fun able () Bits (bvand g1 (bvand g2 g3)))
(define-fun none ((s Bits)) Bool (= s #x0000000000000000))
(push 1) ; expect unsat: disjoint, and together everything
(assert (not (and (none (bvand out1 out2)) (none (bvand out1 out3)) (none (bvand out2 out3)) (none (bvand able (bvor out1 (bvor out2 out3))))
                  (= (bvor able (bvor out1 (bvor out2 out3))) #xffffffffffffffff))))
(check-sat)
(pop 1)
(push 1) ; expect unsat: the reason is the first
(assert (not (and (none (bvand out2 (bvnot g1))) (none (bvand out3 (bvnot (bvand g1 g2)))))))
(check-sat)
(pop 1)
(push 1) ; expect sat: any failing gate as the reason would give some services two
(assert (not (none (bvand (bvnot g1) (bvnot g2)))))
(check-sat)
(pop 1)
